// The tests of the ai SDK that each of its providers must pass.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as ai from 'ai'
import { citySchema, isDropped, messages, prompt, tooLong } from './server.js'

const schema = ai.jsonSchema(citySchema)
const tools = {
  get_weather: ai.tool({
    description: 'The weather of a city',
    inputSchema: schema,
    execute: ({ city }) => `Rain in ${city}`,
  }),
}
const isTrip = ({ city, days }) => ['Paris', 'London'].includes(city) && Array.isArray(days)

/** Tests of a model; `endless` is the same one with answers that do not end. */
export function testsOf(model, endless) {
  test('generateText: it answers with usage and a reason to end', async () => {
    const { text, usage, finishReason } = await ai.generateText({ model: endless, messages, maxOutputTokens: 8 })
    assert.ok(text)
    assert.equal(usage.outputTokens, 8)
    assert.equal(finishReason, 'length')
  })

  test('streamText: it streams the text that generateText gives', async () => {
    const given = { model: endless, messages, maxOutputTokens: 12, temperature: 0 }
    const streamed = ai.streamText(given)
    let text = ''
    for await (const part of streamed.textStream) text += part
    assert.equal(text, (await ai.generateText(given)).text)
    assert.equal((await streamed.usage).outputTokens, 12)
  })

  test('forced tool: it is called with input that fits, run, and its result is answered', async () => {
    const toolChoice = { type: 'tool', toolName: 'get_weather' }
    const { steps } = await ai.generateText({
      model,
      messages,
      tools,
      maxOutputTokens: 80,
      stopWhen: ai.stepCountIs(2),
      prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? toolChoice : 'none' }),
    })
    const [call] = steps[0].toolCalls
    assert.ok(isTrip(call.input))
    assert.equal(steps[0].toolResults[0].output, `Rain in ${call.input.city}`)
    assert.ok(steps[1].text)
  })

  test('forced tool: streamed, the first of the calls has input that fits', async () => {
    const [call] = await ai.streamText({ model, messages, tools, toolChoice: 'required', maxOutputTokens: 80 }).toolCalls
    assert.ok(isTrip(call.input))
  })

  test('auto tools: an answer is text or calls', async () => {
    const { text, toolCalls } = await ai.generateText({ model, messages, tools, maxOutputTokens: 16 })
    assert.ok(text || toolCalls.length > 0)
  })

  test('generateObject: it gives an object of the schema', async () => {
    const { object } = await ai.generateObject({ model, messages, schema, schemaName: 'trip', maxOutputTokens: 80 })
    assert.ok(isTrip(object))
  })

  test('streamObject: its last part is the object of the schema', async () => {
    const streamed = ai.streamObject({ model, messages, schema, maxOutputTokens: 80 })
    let last
    for await (const partial of streamed.partialObjectStream) last = partial
    assert.ok(isTrip(last))
    assert.deepEqual(last, await streamed.object)
  })

  test('output of generateText: it is an object of the schema', async () => {
    const output = ai.Output.object({ schema })
    assert.ok(isTrip((await ai.generateText({ model, messages, output, maxOutputTokens: 80 })).output))
  })

  test('context length error: it is an APICallError that is not tried again', async () => {
    await assert.rejects(ai.generateText({ model, prompt: tooLong }), (error) => {
      assert.ok(ai.APICallError.isInstance(error))
      assert.equal(error.statusCode, 400)
      assert.equal(error.isRetryable, false)
      assert.equal(error.data.error.code, 'context_length_exceeded')
      return /maximum context length is \d+ tokens/.test(error.message)
    })
  })

  test('abort: a stream that is aborted stops computing', async () => {
    const controller = new AbortController()
    const abort = async () => {
      const { textStream } = ai.streamText({ model: endless, prompt, abortSignal: controller.signal })
      for await (const _ of textStream) controller.abort()
    }
    assert.ok(await isDropped(abort))
  })
}
