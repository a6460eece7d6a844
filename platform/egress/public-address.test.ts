import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { isPublicAddress } from "./public-address.ts";

describe("a public address", () => {
  test("is one that the whole internet reaches", () => {
    const open = ["1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "11.0.0.1"];
    for (const address of [
      ...open,
      "223.255.255.255",
      "2606:4700:4700::1111",
      "2a00:1450:4001::200e",
      "2001:4860::1",
    ]) {
      assert.equal(isPublicAddress(address), true, address);
    }
  });

  test("is not one of a private, local, shared, reserved or multicast block", () => {
    const closed = [
      ["0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255"],
      ["127.0.0.1", "127.255.255.255", "169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1"],
      ["172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255"],
      ["198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"],
      ["168.63.129.16"],
    ].flat();
    for (const address of closed) assert.equal(isPublicAddress(address), false, address);
  });

  test("is no IPv6 address that is local or that holds an IPv4 address", () => {
    const closed = [
      [
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:7f00:1",
        "::ffff:0:1.1.1.1",
      ],
      [
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:db8::1",
      ],
      ["fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "2606:4700::1%eth0", "fec0::1", "ff02::1", "100::1"],
      ["3fff::1", "5f00::1", "4000::1"],
    ].flat();
    for (const address of closed) assert.equal(isPublicAddress(address), false, address);
  });

  test("is nothing that is no address", () => {
    for (const text of [
      "",
      "localhost",
      "127.1",
      "2130706433",
      "0x7f.1",
      "[::1]",
      "1.1.1.1 ",
      "1.1.1.1/8",
      "①②⑦.0.0.1",
    ]) {
      assert.equal(isPublicAddress(text), false, text);
    }
  });
});
