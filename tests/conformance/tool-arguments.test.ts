import { describeArgumentsCheck } from "#platform/plugin/tool-arguments.contract.ts";
import { checkArguments } from "#services/agent/engine/check-arguments.ts";

describeArgumentsCheck("checkArguments of the engine", (tool, schema, json) => {
  const checked = checkArguments(tool, schema, json);
  return "problem" in checked ? checked : { args: JSON.parse(checked.argumentsJson) };
});
