// openai for Node: responses.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import OpenAI from 'openai'
import { zodTextFormat } from 'openai/helpers/zod'
import { z } from 'zod'
import { apiKey, baseURL, citySchema, isDropped, model, prompt, tooLong } from './server.js'

const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 })
const input = 'Who are you?'
const weather = { type: 'function', name: 'get_weather', parameters: citySchema }

describe('openai (Node), responses', () => {
  test('streamed response: its deltas are the text of the complete response', async () => {
    let text = ''
    let last
    for await (const event of await client.responses.create({ model, input, max_output_tokens: 12, stream: true })) {
      if (event.type === 'response.output_text.delta') text += event.delta
      last = event
    }
    assert.ok(['response.completed', 'response.incomplete'].includes(last.type))
    assert.equal(last.response.output[0].content[0].text, text)
  })

  test('conversation: a response is kept, continued, and forgotten', async () => {
    const first = await client.responses.create({ model, input, max_output_tokens: 12 })
    assert.ok(first.output_text)
    const given = { model, input: 'And then?', previous_response_id: first.id, max_output_tokens: 12 }
    const second = await client.responses.create(given)
    assert.ok(second.usage.input_tokens > first.usage.total_tokens)
    assert.equal((await client.responses.retrieve(first.id)).id, first.id)
    await client.responses.delete(first.id)
    await assert.rejects(client.responses.retrieve(first.id), OpenAI.NotFoundError)
  })

  test('forced tool: the stream helper gives a call whose arguments fit', async () => {
    const choice = { type: 'function', name: 'get_weather' }
    const stream = client.responses.stream({ model, input, tools: [weather], tool_choice: choice, max_output_tokens: 80 })
    const [call] = (await stream.finalResponse()).output
    assert.equal(call.name, 'get_weather')
    assert.deepEqual(Object.keys(JSON.parse(call.arguments)), ['city', 'days'])
  })

  test('structured output: parse gives an object of the schema that zod describes', async () => {
    const schema = z.object({ city: z.enum(['Paris', 'London']), isFar: z.boolean() })
    const text = { format: zodTextFormat(schema, 'trip') }
    const response = await client.responses.parse({ model, input, max_output_tokens: 60, text })
    assert.ok(schema.safeParse(response.output_parsed).success)
  })

  test('typed errors: what is too long or not supported raises BadRequestError', async () => {
    await assert.rejects(client.responses.create({ model, input: tooLong }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError)
      return error.code === 'context_length_exceeded'
    })
    const hosted = client.responses.create({ model, input, tools: [{ type: 'web_search' }] })
    await assert.rejects(hosted, (error) => error instanceof OpenAI.BadRequestError && error.param === 'tools')
    await assert.rejects(client.responses.create({ model, input, background: true }), OpenAI.BadRequestError)
  })

  test('abort: a stream that is aborted stops computing', async () => {
    const stream = await client.responses.create({ model, input: prompt, ignore_eos: true, stream: true })
    const abort = async () => {
      for await (const event of stream) if (event.type === 'response.output_text.delta') break
      stream.controller.abort()
    }
    assert.ok(await isDropped(abort))
  })
})
