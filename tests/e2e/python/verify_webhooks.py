"""Verifies messages with the reference library of Standard Webhooks: each case says whether it must verify."""

import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError

cases = json.load(open(sys.argv[1], encoding="utf-8"))
for number, case in enumerate(cases):
    headers = {
        "webhook-id": case["id"],
        "webhook-timestamp": case["timestamp"],
        "webhook-signature": case["signature"],
    }
    try:
        payload = Webhook(case["secret"]).verify(case["body"], headers)
        good = payload == json.loads(case["body"])
    except WebhookVerificationError:
        good = False
    if good != case["good"]:
        sys.exit(f"case {number}: expected {case['good']}, found {good}")
print(f"{len(cases)} as expected")
