import { describe, expect, test } from "vitest";
import { flowLines, tlvMapArgument, withoutHeads } from "./flows.ts";

test("a tunnel metadata map is written as it is read back", () => {
  const dump = [
    "NXT_TLV_TABLE_REPLY (OF1.4) (xid=0x4):",
    " max option space=256 max fields=64",
    " allocated option space=8",
    "",
    " mapping table:",
    "  class  type  length  match field",
    " ------  ----  ------  --------------",
    "  0x102  0x80       4  tun_metadata0",
    "  0x103  0x81       8  tun_metadata1",
  ].join("\n");
  expect(tlvMapArgument(dump)).toBe("{class=0x102,type=0x80,len=4}->tun_metadata0,{class=0x103,type=0x81,len=8}->tun_metadata1");
  expect(tlvMapArgument("no table here\n")).toBe("");
});

describe("flowLines", () => {
  test.each([
    [
      "heads are dropped",
      "OFPST_FLOW reply (OF1.4) (xid=0x6):\n table=0, priority=1 actions=drop\n",
      "table=0, priority=1 actions=drop\n",
    ],
    ["ages are dropped", " idle_age=3, hard_age=5, table=1, actions=NORMAL", "table=1, actions=NORMAL\n"],
    ["igmp is renamed", " table=2, igmp,igmp_type=17 actions=drop", "table=2, ip,nw_proto=2,tp_src=17 actions=drop\n"],
  ])("%s", (_, dump, lines) => {
    expect(flowLines(dump)).toBe(lines);
  });
});

test("an empty dump stays empty", () => {
  expect(withoutHeads("OFPST_GROUP_DESC reply (OF1.4) (xid=0x2):\n")).toBe("");
});
