// The server under test, named by the environment, and the requests that several clients make.

export const root = process.env.PEREGRINE_URL ?? 'http://127.0.0.1:3000'
export const baseURL = `${root}/v1`
export const apiKey = process.env.PEREGRINE_API_KEY ?? '-'
export const model = process.env.PEREGRINE_MODEL ?? 'peregrine/falcon-demo'

export const prompt = 'It was a fine morning, and'
export const messages = [{ role: 'user', content: 'Who are you?' }]
/** Longer than the context of the demo model. */
export const tooLong = 'x y '.repeat(5000)

/** Few strings are open-ended in it, so that the demo model ends its JSON. */
export const citySchema = {
  type: 'object',
  properties: { city: { enum: ['Paris', 'London'] }, days: { type: 'array', items: { type: 'boolean' }, maxItems: 2 } },
  required: ['city', 'days'],
  additionalProperties: false,
}

/** For clients that pass no parameters on that they do not know: `fetch` with one that keeps an answer from ending. */
export function endlessFetch(url, init) {
  return fetch(url, { ...init, body: JSON.stringify({ ...JSON.parse(init.body), ignore_eos: true }) })
}

/** Requests whose clients have left. */
async function numDropped() {
  const response = await fetch(`${root}/metrics`, { headers: { authorization: `Bearer ${apiKey}` } })
  return Number(/^tgi_request_failure\{err="dropped"\} (\S+)/m.exec(await response.text())?.[1] ?? 0)
}

/** Whether the server drops the request that `abort` leaves, long before it would end by itself. */
export async function isDropped(abort) {
  const before = await numDropped()
  await abort()
  for (let tries = 0; tries < 50; tries++) {
    if ((await numDropped()) > before) return true
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return false
}
