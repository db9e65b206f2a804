/** The PodDisruptionBudget that refuses every eviction of a claim: what runs in a claim must be shut down or moved first. */
import { CLAIM_LABEL, CLAIMS_BUDGET, OPERATOR_MANAGER } from "../../crds/names.ts";
import { ApiError, resources } from "../../kube/index.ts";
import type { OperatorContext } from "../context.ts";

type BudgetContext = Pick<OperatorContext, "client" | "budgets" | "claimCounts">;

/**
 * `minAvailable` that no number of claims reaches: with a controller that has no scale subresource, the disruption controller then says
 * InsufficientPods (with maxUnavailable it would say SyncFailed), and refuses all the same.
 */
const MORE_THAN_ANY = 1_000_000;

export const claimsBudget = (namespace: string) => ({
  apiVersion: "policy/v1",
  kind: "PodDisruptionBudget",
  metadata: { name: CLAIMS_BUDGET, namespace, labels: { "app.kubernetes.io/managed-by": "drover" } },
  spec: { minAvailable: MORE_THAN_ANY, selector: { matchExpressions: [{ key: CLAIM_LABEL, operator: "Exists" }] } },
});

/** Makes the budget of a namespace unless it is there. May be repeated. */
export async function ensureBudget(namespace: string, { client, budgets }: BudgetContext): Promise<void> {
  if (budgets.get({ namespace, name: CLAIMS_BUDGET }) !== undefined) return;
  try {
    await client.create(resources.podDisruptionBudgets, claimsBudget(namespace), { manager: OPERATOR_MANAGER });
  } catch (error) {
    if (!(error instanceof ApiError && error.reason === "AlreadyExists")) throw error;
  }
}

/**
 * Removes the budget of a namespace without claims. Should a claim be made at this very moment, the deletion is seen and the budget is
 * made again.
 */
export async function dropBudget(namespace: string, { client, budgets, claimCounts }: BudgetContext): Promise<void> {
  const key = { namespace, name: CLAIMS_BUDGET };
  if (budgets.get(key) === undefined || claimCounts.of(namespace) > 0) return;
  await client.delete(resources.podDisruptionBudgets, key);
}
