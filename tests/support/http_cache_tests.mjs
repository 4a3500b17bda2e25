// Runs the suite of http-tests against a proxy: its server here on a port of its own, its client through the proxy.
//
// Says the server's port on the first line of its output, reads the proxy's port from its input, and says what came of
// each test as JSON: { id: { kind, result, detail } }.

import http from 'node:http'
import { createRequire } from 'node:module'
import path from 'node:path'
import readline from 'node:readline'
import { pathToFileURL } from 'node:url'

const folder = process.argv[2]
const load = file => import(pathToFileURL(path.join(folder, file)))
const fetch = createRequire(path.join(folder, 'package.json'))('node-fetch')

// The suite numbers the requests of a test in a field of its own. A field that nobody knows tells users apart, so the
// number goes where a number goes.
const NUMBER = 'x-request-id'

// The suite's server listens everywhere by itself; and what it says belongs to nobody here.
const server = await new Promise(resolve => {
  const listen = http.Server.prototype.listen
  http.Server.prototype.listen = function () {
    this.on('listening', () => resolve(this))
    this.prependListener('request', request => { request.headers['req-num'] = request.headers[NUMBER] })
    return listen.call(this, 0, '127.0.0.1')
  }
  Object.assign(process.env, { npm_config_protocol: 'http', npm_config_port: '0', npm_config_pidfile: '/dev/null' })
  console.say = console.log
  console.log = () => {}
  load('server/server.mjs')
})
const port = server.address().port
console.say(port)
const proxy = await new Promise(resolve => readline.createInterface({ input: process.stdin }).once('line', resolve))

class Agent extends http.Agent {
  addRequest (request, options) {
    if (request.hasHeader('req-num')) request.setHeader(NUMBER, request.getHeader('req-num'))
    request.removeHeader('req-num')
    request.path = `http://partner.test:${port}${request.path}`
    super.addRequest(request, { ...options, host: '127.0.0.1', port: Number(proxy) })
  }
}
const agent = new Agent({ keepAlive: true })
const through = (url, init) => fetch(url, { ...init, agent })

const { default: suites } = await load('tests/index.mjs')
// What is for the caches of browsers alone, then the rest, all at once: the tests mostly wait. A runner keeps what it
// has run, so there are two.
const { getResults } = await load('client/test.mjs').then(() => load('client/runner.mjs'))
for (const isPersonal of [true, false]) {
  const { runTests } = await import(pathToFileURL(path.join(folder, 'client/runner.mjs')) + `?${isPersonal}`)
  const some = suites.map(suite => ({ ...suite, tests: suite.tests.filter(test => !!test.browser_only === isPersonal) }))
  await runTests(some, through, isPersonal, `http://partner.test:${port}`, 1000)
}

const tests = new Map(suites.flatMap(suite => suite.tests).map(test => [test.id, test]))
const results = getResults()

// The suite's own judgement stands in a module for browsers; this is what it says there, in words.
function judge (id) {
  const test = tests.get(id)
  const result = results[id]
  if (result === undefined) return 'untested'
  if ((test.depends_on || []).some(other => !['pass', 'yes'].includes(judge(other)))) return 'dependency'
  if (result === true) return test.kind === 'check' ? 'yes' : 'pass'
  if (result[0] === 'Setup') return result[1] === 'retry' ? 'retry' : 'setup'
  if (result[0] !== 'Assertion') return 'harness'
  return { check: 'no', optimal: 'suboptimal' }[test.kind] || 'fail'
}

const told = {}
for (const test of tests.values()) {
  const result = results[test.id]
  const detail = Array.isArray(result) ? result.join(': ') : ''
  told[test.id] = { kind: test.kind || 'required', result: judge(test.id), detail }
}
process.stdout.write(`${JSON.stringify(told)}\n`, () => process.exit(0))
