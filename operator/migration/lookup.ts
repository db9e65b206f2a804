/** Finds the Migrations of an instance, our own writes included. */
import type { Migration } from "../../crds/migration.ts";
import { keyOf, keyText, type ObjectKey } from "../../kube/index.ts";
import type { OperatorContext } from "../context.ts";

/** Those that name this instance, ended ones too; costs as many as there are. */
export const migrationsOf = (
  instance: ObjectKey,
  { migrations, recentMigrations }: Pick<OperatorContext, "migrations" | "recentMigrations">,
): Migration[] => migrations.byIndex("instance", keyText(instance)).map((one) => recentMigrations.get(keyOf(one)) ?? one);
