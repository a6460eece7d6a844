import { create, type DescMethod, getOption } from "@bufbuild/protobuf";
import { type AuthRule, AuthRuleSchema, auth, Exposure } from "#gen/agentmesh/common/v1/auth_option_pb.ts";

const rules = new WeakMap<DescMethod, AuthRule>();

/** Standard services of the gRPC project: they carry no option of ours, and their clients send no credential. */
const STANDARD_SERVICES: ReadonlySet<string> = new Set([
  "grpc.health.v1.Health",
  "grpc.reflection.v1.ServerReflection",
  "grpc.reflection.v1alpha.ServerReflection",
]);

/** The `(agentmesh.common.v1.auth)` option of a method. A method without one has exposure UNSPECIFIED and is refused. */
export function authRule(method: DescMethod): AuthRule {
  let rule = rules.get(method);
  if (rule === undefined) {
    rule = STANDARD_SERVICES.has(method.parent.typeName)
      ? create(AuthRuleSchema, { exposure: Exposure.ANONYMOUS })
      : getOption(method, auth);
    rules.set(method, rule);
  }
  return rule;
}

/** True for methods that the gateway mounts. */
export function isPublic(method: DescMethod): boolean {
  const { exposure } = authRule(method);
  return exposure === Exposure.PUBLIC_API || exposure === Exposure.ANONYMOUS;
}
