import type { MessageInit } from "./schema.ts";

/** A message with a field of every kind. */
export const KITCHEN: MessageInit = {
  double_value: "double",
  float_value: "float",
  int32_value: "int32",
  int64_value: "int64",
  uint32_value: "uint32",
  uint64_value: "uint64",
  sint32_value: "sint32",
  sint64_value: "sint64",
  fixed32_value: "fixed32",
  fixed64_value: "fixed64",
  sfixed32_value: "sfixed32",
  sfixed64_value: "sfixed64",
  bool_value: "bool",
  string_value: "string",
  bytes_value: "bytes",
  color: ".test.v1.Color",
  child: ".test.v1.Child",
  maybe_text: ["string", { optional: true }],
  maybe_number: ["int32", { optional: true }],
  numbers: ["int32", { repeated: true }],
  texts: ["string", { repeated: true }],
  colors: [".test.v1.Color", { repeated: true }],
  children: [".test.v1.Child", { repeated: true }],
  labels: ["string", { mapKey: "string" }],
  by_number: ["int64", { mapKey: "int32" }],
  by_flag: [".test.v1.Child", { mapKey: "bool" }],
  choice_text: ["string", { oneof: "choice" }],
  choice_child: [".test.v1.Child", { oneof: "choice" }],
  time: ".google.protobuf.Timestamp",
  span: ".google.protobuf.Duration",
  mask: ".google.protobuf.FieldMask",
  facts: ".google.protobuf.Struct",
  anything: ".google.protobuf.Value",
  list: ".google.protobuf.ListValue",
  nothing: ".google.protobuf.NullValue",
  wrapped_text: ".google.protobuf.StringValue",
  wrapped_long: ".google.protobuf.Int64Value",
  wrapped_flag: ".google.protobuf.BoolValue",
  wrapped_bytes: ".google.protobuf.BytesValue",
  any: ".google.protobuf.Any",
};

export const CHILD: MessageInit = {
  name: "string",
  big_size: "int64",
  child: ".test.v1.Child",
};

export const COLOR = ["COLOR_UNSPECIFIED", "COLOR_RED", "COLOR_GREEN"];
