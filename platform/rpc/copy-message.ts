import type { Message } from "@bufbuild/protobuf";

/** More than the tag and length of a field, or a scalar with its tag, can take on the wire. */
const FIELD_BYTES = 16;
/** UTF-8 of one UTF-16 code unit. */
const UNIT_BYTES = 3;

/**
 * A copy of a message that shares nothing mutable with it, strings as the wire would carry them (UTF-8 has no lone
 * surrogates). Messages of protobuf-es are plain data, so that no descriptor is needed and a delta costs less than a
 * microsecond. `bytesAtMost` is never less than the encoded size.
 */
export function copyMessage<T extends Message>(message: T): { copy: T; bytesAtMost: number } {
  const copier = new Copier();
  const copy = copier.copy(message) as T;
  return { copy, bytesAtMost: copier.bytesAtMost };
}

class Copier {
  bytesAtMost = 0;

  copy(value: unknown): unknown {
    this.bytesAtMost += FIELD_BYTES;
    if (typeof value === "string") {
      this.bytesAtMost += UNIT_BYTES * value.length;
      return value.toWellFormed();
    }
    if (typeof value !== "object" || value === null) return value;
    if (value instanceof Uint8Array) {
      this.bytesAtMost += value.length;
      return new Uint8Array(value);
    }
    if (Array.isArray(value)) return value.map((one) => this.copy(one));
    return this.#object(value as Record<string, unknown>);
  }

  #object(value: Record<string, unknown>): Record<string, unknown> {
    const prototype = Object.getPrototypeOf(value);
    // Messages of proto2 and editions have their defaults in a prototype.
    const copy =
      prototype === Object.prototype ? { ...value } : (Object.assign(Object.create(prototype), value) as typeof value);
    for (const key of Object.keys(copy)) {
      this.bytesAtMost += UNIT_BYTES * key.length;
      copy[key] = this.copy(copy[key]);
    }
    return copy;
  }
}
