# Answers the questions of peer_test.go, a line of JSON each, with the standardwebhooks library of PyPI.
import json
import sys
from datetime import datetime, timezone

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

for line in sys.stdin:
    q = json.loads(line)
    webhook = Webhook(q["secret"])
    if "headers" not in q:
        at = datetime.fromtimestamp(q["timestamp"], tz=timezone.utc)
        answer = webhook.sign(q["id"], at, q["body"])
    else:
        try:
            webhook.verify(q["body"], q["headers"])
            answer = "verified"
        except WebhookVerificationError:
            answer = "refused"
    print(json.dumps(answer), flush=True)
