// A receiver takes over the keys that Latchkey rotates by schedule, and calls an API with the one that it has:
//
//	WEBHOOK_SECRET=whsec_… npx tsx receiver.ts serve 127.0.0.1:9090 key.json
//	npx tsx receiver.ts call https://api.example.com/orders key.json
//
// The file is the only thing that both know. It begins as {"key": "<the key as it was issued>"}. From Node.js 22.18 on,
// `node receiver.ts` does without tsx.
import { createServer, type IncomingMessage } from 'node:http'
import { Webhook, WebhookVerificationError } from 'standardwebhooks'
import { read, write } from './store.ts'

// The largest notice that Latchkey sends.
const maxBody = 64 * 1024

// The part of a notice that a receiver needs. An event has a version, tells of a rotation and brings no key.
type Notice = { version?: number; type: string; data?: { key?: unknown } }

const [command, target, file] = process.argv.slice(2)
if (command === 'serve' && target && file) {
  serve(target, file)
} else if (command === 'call' && target && file) {
  const answer = await fetch(target, { headers: { Authorization: `Bearer ${read(file).key}` } })
  console.log(answer.status)
} else {
  console.error('receiver: use: receiver serve ADDRESS FILE, or receiver call URL FILE')
  process.exitCode = 1
}

// serve takes notices at an address until it is killed. Before it stands whatever ends TLS.
function serve(address: string, file: string): void {
  const webhook = new Webhook(process.env.WEBHOOK_SECRET ?? '')
  read(file)
  const colon = address.lastIndexOf(':')
  createServer({ requestTimeout: 10_000 }, async (request, response) => {
    let status = 500
    try {
      const body = await whole(request)
      status = body === undefined ? 413 : answer(webhook, request, body, file)
    } catch (error) {
      console.error('receiver:', error instanceof Error ? error.message : 'it failed') // it holds no key
    }
    response.writeHead(status).end()
  }).listen(Number(address.slice(colon + 1)), address.slice(0, colon))
}

// answer is 204 only once the key is kept: from then on Latchkey counts on it.
function answer(webhook: Webhook, request: IncomingMessage, body: string, file: string): number {
  let notice: Notice
  try {
    notice = webhook.verify(body, request.headers as Record<string, string>) as Notice
  } catch (error) {
    return error instanceof WebhookVerificationError ? 401 : 400
  }
  return take(file, String(request.headers['webhook-id']), notice) ? 204 : 400
}

// take keeps the key of a notice that was not taken before. The same notice may come twice, and an old one late: what is in
// the file must not go back. It is done without a pause, so one notice at a time.
function take(file: string, id: string, notice: Notice): boolean {
  const state = read(file)
  if (notice.version !== undefined || notice.type !== 'api_key.rotated' || state.taken.includes(id)) {
    return true
  }
  const key = notice.data?.key
  if (typeof key !== 'string' || key === '') {
    return false
  }
  write(file, { key, taken: [...state.taken, id] })
  return true
}

// whole is a request's body, or undefined if it is larger than any notice.
async function whole(request: IncomingMessage): Promise<string | undefined> {
  const parts: Buffer[] = []
  let size = 0
  for await (const part of request) {
    size += part.length
    if (size > maxBody) {
      return undefined
    }
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}
