// The ai SDK with its provider for OpenAI, whose models are those of responses unless told otherwise.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createOpenAI } from '@ai-sdk/openai'
import { generateText } from 'ai'
import { testsOf } from './ai.js'
import { apiKey, baseURL, endlessFetch, messages, model } from './server.js'

describe('ai with @ai-sdk/openai', () => {
  const openai = createOpenAI({ baseURL, apiKey })
  const endless = createOpenAI({ baseURL, apiKey, fetch: endlessFetch })
  testsOf(openai(model), endless(model))

  test('log-probabilities: each token has its likeliest ones', async () => {
    const providerOptions = { openai: { logprobs: 2 } }
    const { providerMetadata } = await generateText({ model: openai(model), messages, providerOptions })
    assert.ok(providerMetadata.openai.logprobs[0].every((token) => token.top_logprobs.length === 2))
  })

  test('conversation: a response is continued by its id', async () => {
    const first = await generateText({ model: openai(model), messages, maxOutputTokens: 12 })
    const providerOptions = { openai: { previousResponseId: first.providerMetadata.openai.responseId } }
    const second = await generateText({ model: openai(model), prompt: 'And then?', maxOutputTokens: 12, providerOptions })
    assert.ok(second.usage.inputTokens > first.usage.totalTokens)
  })
})
