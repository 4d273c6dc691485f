// The ai SDK with its providers for OpenAI's chat completions and for servers compatible with it.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { APICallError, embed, generateText } from 'ai'
import { testsOf } from './ai.js'
import { apiKey, baseURL, endlessFetch, messages, model, prompt } from './server.js'

describe('ai with @ai-sdk/openai, .chat()', () => {
  const openai = createOpenAI({ baseURL, apiKey })
  const endless = createOpenAI({ baseURL, apiKey, fetch: endlessFetch })
  testsOf(openai.chat(model), endless.chat(model))

  test('log-probabilities: each token has its likeliest ones', async () => {
    const providerOptions = { openai: { logprobs: 2 } }
    const chat = await generateText({ model: openai.chat(model), messages, maxOutputTokens: 4, providerOptions })
    assert.ok(chat.providerMetadata.openai.logprobs.every((token) => token.top_logprobs.length === 2))
  })

  test('completion: a text is continued', async () => {
    const { text } = await generateText({ model: openai.completion(model), prompt, maxOutputTokens: 8 })
    assert.ok(text)
  })

  test('refusal of embeddings: the error names the route that is missing', async () => {
    const refused = embed({ model: openai.embedding(model), value: prompt })
    await assert.rejects(refused, (error) => APICallError.isInstance(error) && error.message.includes('/v1/embeddings'))
  })
})

describe('ai with @ai-sdk/openai-compatible', () => {
  const given = { name: 'peregrine', baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true }
  const compatible = createOpenAICompatible(given)
  const endless = createOpenAICompatible({ ...given, fetch: endlessFetch })
  testsOf(compatible(model), endless(model))

  test('completion: a text is continued', async () => {
    const { text } = await generateText({ model: compatible.completionModel(model), prompt, maxOutputTokens: 8 })
    assert.ok(text)
  })

  test('log-probabilities: each token has its likeliest ones', { todo: 'it leaves them out of its result' }, async () => {
    const providerOptions = { peregrine: { logprobs: true, top_logprobs: 2 } }
    const chat = await generateText({ model: compatible(model), messages, maxOutputTokens: 4, providerOptions })
    assert.ok(chat.providerMetadata.peregrine.logprobs.every((token) => token.top_logprobs.length === 2))
  })

  test('other parameters: a regular expression in providerOptions holds the text', async () => {
    const providerOptions = { peregrine: { response_format: { type: 'regex', value: '[0-9]{3}' } } }
    const { text } = await generateText({ model: compatible(model), messages, providerOptions })
    assert.match(text, /^\d{3}$/)
  })
})
