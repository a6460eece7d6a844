import type { DescMethod } from "@bufbuild/protobuf";
import { getOption } from "@bufbuild/protobuf";
import { http } from "#gen/google/api/annotations_pb.ts";
import { MODULES } from "#mesh/modules.ts";
import { authRule, isPublic } from "#platform/rpc/method-rules.ts";

/** A method of the mesh and the module that serves it. */
export interface MeshMethod {
  readonly name: string;
  readonly module: string;
  readonly method: DescMethod;
  readonly public: boolean;
  /** Needs `platform:admin`, which no tenant's credential has. */
  readonly platformOnly: boolean;
  /** Changes nothing, by its own declaration. */
  readonly readOnly: boolean;
}

/** Every method that the mesh serves, from the same table that starts it: reads first. */
export function meshMethods(): MeshMethod[] {
  const all = Object.entries(MODULES).flatMap(([module, row]) =>
    row.module.services.flatMap((service) =>
      service.methods.map((method) => ({
        name: `${service.typeName}/${method.name}`,
        module,
        method,
        public: isPublic(method),
        platformOnly: authRule(method).anyScope.every((scope) => scope === "platform:admin"),
        // NO_SIDE_EFFECTS of google.protobuf.MethodOptions.IdempotencyLevel.
        readOnly: method.idempotency === 1,
      })),
    ),
  );
  return all.toSorted((a, b) => Number(b.readOnly) - Number(a.readOnly));
}

/** How a method is reached over REST, from its `google.api.http` option. */
export interface RestRoute {
  readonly verb: string;
  readonly template: string;
  readonly body: string;
}

export function restRoute(method: DescMethod): RestRoute | undefined {
  const rule = getOption(method, http);
  if (rule.pattern.case === undefined || rule.pattern.case === "custom") return undefined;
  return { verb: rule.pattern.case.toUpperCase(), template: rule.pattern.value, body: rule.body };
}
