import { describe, expect, it } from "vitest";
import { answerReview, parseReview } from "./review.ts";

const review = (request: object) =>
  JSON.stringify({
    apiVersion: "admission.k8s.io/v1",
    kind: "AdmissionReview",
    request: {
      uid: "r1",
      operation: "CREATE",
      resource: { group: "", version: "v1", resource: "pods" },
      subResource: "eviction",
      name: "drover-web-aaaaa",
      namespace: "team-a",
      dryRun: false,
      object: { kind: "Eviction", metadata: { name: "drover-web-aaaaa" } },
      ...request,
    },
  });

describe("a review", () => {
  it("names the claim", () => {
    expect(parseReview(review({}))).toEqual({
      uid: "r1",
      namespace: "team-a",
      name: "drover-web-aaaaa",
      dryRun: false,
      graceSeconds: undefined,
    });
  });
  it.each([
    ["by the request", { dryRun: true }],
    ["by the eviction's own options", { object: { deleteOptions: { dryRun: ["All"] } } }],
  ])("is a dry run %s", (_, request) => expect(parseReview(review(request)).dryRun).toBe(true));
  it("has a grace period", () => {
    expect(parseReview(review({ object: { deleteOptions: { gracePeriodSeconds: 0 } } })).graceSeconds).toBe(0);
  });
  it.each([
    ["of something else", review({ subResource: "binding" }), "judges CREATE of pods/eviction, not CREATE of pods/binding"],
    ["of a deletion", review({ operation: "DELETE" }), "not DELETE of pods/eviction"],
    ["without a name", review({ name: "" }), "name"],
    ["that is none", "{}", "AdmissionReview"],
    ["that is no JSON", "{", "JSON"],
  ])("%s is refused", (_, text, says) => expect(() => parseReview(text)).toThrow(says));
});

it("a refusal is a 429, which evictors try again", () => {
  expect(answerReview("r1", "not yet")).toMatchObject({
    response: { uid: "r1", allowed: false, status: { code: 429, reason: "TooManyRequests", message: "not yet" } },
  });
  expect(answerReview("r1", undefined)).toMatchObject({ response: { uid: "r1", allowed: true } });
});
