/** Reading the reply to a transaction: one result per operation, or which of them failed and why. Pure. */
import { OvsdbError } from "./errors.ts";
import { decodeResult, describeOperation, type Operation, type OperationResult } from "./operations.ts";
import { readError } from "./session.ts";

const isError = (raw: unknown): boolean => typeof raw === "object" && raw !== null && "error" in raw && raw.error !== undefined;

/** Results in the order of the operations. Throws OvsdbError for the first that failed; one result too many is the commit's own error. */
export const readTransactReply = (operations: readonly Operation[], reply: unknown): OperationResult[] => {
  if (!Array.isArray(reply)) throw new OvsdbError("the transaction's reply made no sense", { error: JSON.stringify(reply) });
  const failed = reply.findIndex(isError);
  if (failed >= 0) {
    const operation = operations[failed];
    const what = operation
      ? `operation ${failed + 1} of ${operations.length} (${describeOperation(operation)}) was refused`
      : "the transaction was refused as a whole";
    throw new OvsdbError(what, readError(reply[failed]), operation ? failed : undefined);
  }
  return operations.map((_, index) => decodeResult(reply[index]));
};
