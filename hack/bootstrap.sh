#!/bin/sh
# bootstrap.sh [COMMAND...]: makes a bare Debian 12 or 13 able to run this project's scripts, then becomes COMMAND with this
# checkout's Node 26 first on PATH. Does only what is missing; in a checkout that is ready it takes milliseconds.
set -eu
cd "$(dirname "$0")/.."

say() { echo "bootstrap: $*" >&2; }
fail() {
  say "$*"
  exit 1
}

as_root() { [ "$(id -u)" = 0 ] || fail "$1: run this once as root"; }

# Packages whose scripts must not start anything. The machine's own policy, if it has one, is put back.
install() {
  as_root "the packages $* are missing"
  command -v apt-get >/dev/null || fail "these are missing and there is no apt-get here: install $* in your own way"
  policy=/usr/sbin/policy-rc.d
  ours=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\n# Written by Drover'"'"'s bootstrap while it installs packages: nothing may start.\nexit 101\n' >"$policy"
    chmod +x "$policy"
    ours=1
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
  fi
  say "installing $*"
  get() { DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq "$@" >/dev/null; }
  get install -y --no-install-recommends "$@" 2>/dev/null || { get update && get install -y --no-install-recommends "$@"; }
  if [ -n "$ours" ]; then
    rm -f "$policy"
    trap - EXIT INT TERM
  fi
}

npm_works() { command -v npm >/dev/null && npm --version >/dev/null 2>&1; }

# What npm installed last, so that a changed lock file is noticed.
stamp=node_modules/.drover-lock
if ! cmp -s package-lock.json "$stamp" || [ ! -x node_modules/.bin/node ]; then
  # libatomic is what Node.js needs of a bare system; a certificate store, what npm needs.
  missing=
  [ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
  npm_works || missing="$missing nodejs npm"
  # shellcheck disable=SC2086
  [ -z "$missing" ] || install $missing
  say "npm ci"
  npm ci --loglevel=error --no-audit --no-fund >&2
  [ -x node_modules/.bin/node ] || fail "npm did not install Node 26 (package \"node\"): see the messages above"
  cp package-lock.json "$stamp"
fi

PATH=$PWD/node_modules/.bin:$PATH
export PATH
[ "$#" -gt 0 ] || exit 0
exec "$@"
