"""A model with a script: a local server that speaks the Messages API and answers from a prepared list.

It plays the model's part where no API key is at hand, in the demo and in the tests. It is never chosen silently: whoever starts it says so.
"""
