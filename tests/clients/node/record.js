// A reporter for `node --test`: {client: {"version", "features": {feature: null or why the client cannot}}} as JSON.
//
// A suite is a client, named with its packages. A test is a feature, which is its name before the colon. One that the
// client fails by itself is a `todo` that says why. Nothing is written if another test fails, a `todo` passes, or a test
// is skipped.
import { readFileSync } from 'node:fs'

const { dependencies } = JSON.parse(readFileSync(new URL('package.json', import.meta.url)))

export default async function* record(events) {
  const clients = {}
  let features = {}
  let isWhole = true
  for await (const { type, data } of events) {
    if (type !== 'test:pass' && type !== 'test:fail') continue
    isWhole &&= data.skip === undefined && (type === 'test:pass') === (data.todo === undefined)
    if (data.details.type !== 'suite') {
      const feature = data.name.split(':')[0]
      features[feature] = features[feature] ?? data.todo ?? null
    } else {
      clients[data.name] = { version: versionOf(data.name), features }
      features = {}
    }
  }
  if (isWhole) yield JSON.stringify(clients, null, 2) + '\n'
}

/** The pinned versions of the packages in a client's name. */
function versionOf(client) {
  const packages = client.split(/[ ,]+/).filter((word) => word in dependencies)
  return packages.map((name) => dependencies[name]).join(', ')
}
