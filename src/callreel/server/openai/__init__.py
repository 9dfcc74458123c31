"""OpenAI's audio API to the letter: what its clients send, what they are answered.

Source: https://platform.openai.com/docs/api-reference/audio, as the types of the `openai` package for Python have it.
"""
