// Answers the questions of peer_test.go, a line of JSON each, with the standardwebhooks library of npm.
const { Webhook, WebhookVerificationError } = require(require.resolve("standardwebhooks", { paths: [process.argv[2]] }));

require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const q = JSON.parse(line);
  const webhook = new Webhook(q.secret);
  let answer = "verified";
  if (!q.headers) {
    answer = webhook.sign(q.id, new Date(q.timestamp * 1000), q.body);
  } else {
    try {
      webhook.verify(q.body, q.headers);
    } catch (e) {
      if (!(e instanceof WebhookVerificationError)) throw e;
      answer = "refused";
    }
  }
  console.log(JSON.stringify(answer));
});
