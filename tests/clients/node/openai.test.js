// openai for Node: completions, chat completions, models.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import OpenAI from 'openai'
import { zodResponseFormat } from 'openai/helpers/zod'
import { z } from 'zod'
import { apiKey, baseURL, citySchema, isDropped, messages, model, prompt, tooLong } from './server.js'

const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 })
const weather = { type: 'function', function: { name: 'get_weather', parameters: citySchema } }

describe('openai (Node)', () => {
  test('streamed completion: it is the whole one, with its usage', async () => {
    const given = { model, prompt, max_tokens: 12, temperature: 0, ignore_eos: true }
    const whole = await client.completions.create(given)
    assert.equal(whole.choices[0].finish_reason, 'length')
    const chunks = []
    const stream = await client.completions.create({ ...given, stream: true, stream_options: { include_usage: true } })
    for await (const chunk of stream) chunks.push(chunk)
    assert.equal(chunks.map((chunk) => chunk.choices[0]?.text ?? '').join(''), whole.choices[0].text)
    assert.deepEqual(chunks.at(-1).usage, whole.usage)
  })

  test('n and batches: several prompts and n answers to each come in order', async () => {
    const { choices } = await client.completions.create({ model, prompt: [prompt, prompt], n: 2, max_tokens: 3, seed: 1 })
    assert.deepEqual(choices.map((choice) => choice.index), [0, 1, 2, 3])
  })

  test('prompt log-probabilities: a prompt is scored without generating', async () => {
    const scored = await client.completions.create({ model, prompt, max_tokens: 0, echo: true, logprobs: 1 })
    const { token_logprobs, top_logprobs } = scored.choices[0].logprobs
    assert.equal(scored.usage.completion_tokens, 0)
    assert.equal(token_logprobs.length, scored.usage.prompt_tokens)
    assert.ok(top_logprobs.slice(1).every((top) => Object.values(top).every((value) => value <= 0)))
  })

  test('chat with log-probabilities: their bytes are its text', async () => {
    const chat = await client.chat.completions.create({
      model,
      messages,
      max_completion_tokens: 8,
      logprobs: true,
      top_logprobs: 3,
    })
    const { content } = chat.choices[0].logprobs
    const text = Buffer.from(content.flatMap((token) => token.bytes)).toString()
    assert.ok(text.startsWith(chat.choices[0].message.content))
    assert.ok(content.every((token) => token.top_logprobs.length === 3))
  })

  test('streamed chat: the stream helper puts together the same message as the whole answer', async () => {
    const given = { model, messages, max_tokens: 16, seed: 7 }
    const whole = await client.chat.completions.create(given)
    const streamed = await client.chat.completions.stream(given).finalChatCompletion()
    assert.equal(streamed.choices[0].message.content, whole.choices[0].message.content)
    assert.equal(streamed.choices[0].finish_reason, whole.choices[0].finish_reason)
  })

  test('forced tool: it is called with arguments that fit its schema, streamed or not', async () => {
    const given = { model, messages, tools: [weather], tool_choice: weather, max_tokens: 80, seed: 1 }
    const whole = await client.chat.completions.create(given)
    assert.equal(whole.choices[0].finish_reason, 'tool_calls')
    const [call] = whole.choices[0].message.tool_calls
    assert.equal(call.function.name, 'get_weather')
    assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ['city', 'days'])
    const streamed = await client.chat.completions.stream(given).finalChatCompletion()
    assert.equal(streamed.choices[0].message.tool_calls[0].function.arguments, call.function.arguments)
  })

  test('runTools: it calls the function and sends its result back', async () => {
    const cities = []
    const runner = client.chat.completions.runTools({
      model,
      messages,
      max_tokens: 80,
      tool_choice: weather,
      tools: [
        {
          type: 'function',
          function: {
            ...weather.function,
            parse: JSON.parse,
            function: ({ city }) => cities.push(city) && 'Rain',
          },
        },
      ],
    })
    await runner.done()
    assert.equal(cities.length, 1)
    assert.equal(runner.messages.at(-1).content, 'Rain')
  })

  test('auto tools: an answer is text or calls', async () => {
    const { choices } = await client.chat.completions.create({ model, messages, tools: [weather], max_tokens: 16 })
    const { content, tool_calls } = choices[0].message
    assert.ok(typeof content === 'string' || tool_calls.length > 0)
  })

  test('structured output: parse gives an object of the schema that zod describes', async () => {
    const schema = z.object({ city: z.enum(['Paris', 'London']), isFar: z.boolean() })
    const chat = await client.chat.completions.parse({
      model,
      messages,
      max_tokens: 60,
      response_format: zodResponseFormat(schema, 'trip'),
    })
    assert.ok(schema.safeParse(chat.choices[0].message.parsed).success)
  })

  test('context length error: a prompt that is too long raises BadRequestError with the code context_length_exceeded', async () => {
    const chat = client.chat.completions.create({ model, messages: [{ role: 'user', content: tooLong }] })
    await assert.rejects(chat, (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError)
      assert.equal(error.code, 'context_length_exceeded')
      return /maximum context length is \d+ tokens/.test(error.message)
    })
  })

  test('typed errors: a wrong parameter, key or route raises the error of its status', async () => {
    const wrong = client.chat.completions.create({ model, messages, temperature: -1 })
    await assert.rejects(wrong, (error) => error instanceof OpenAI.BadRequestError && error.param === 'temperature')
    await assert.rejects(client.withOptions({ apiKey: 'wrong' }).models.list().then(), OpenAI.AuthenticationError)
    await assert.rejects(client.embeddings.create({ model, input: prompt }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError)
      return error.message.includes('/v1/embeddings')
    })
  })

  test('models: they are listed and found by an id with a slash', async () => {
    const ids = []
    for await (const { id } of client.models.list()) ids.push(id)
    assert.deepEqual(ids, [model])
    assert.equal((await client.models.retrieve(model)).id, model)
    await assert.rejects(client.models.retrieve('nothing'), OpenAI.NotFoundError)
  })

  test('abort: a stream that is aborted stops computing', async () => {
    const stream = await client.completions.create({ model, prompt, max_tokens: 1900, ignore_eos: true, stream: true })
    const abort = async () => {
      for await (const _ of stream) break
      stream.controller.abort()
    }
    assert.ok(await isDropped(abort))
  })
})
