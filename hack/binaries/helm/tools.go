//go:build tools

// Package tools pins the Helm that the lab installs the chart with; nothing here is compiled.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
