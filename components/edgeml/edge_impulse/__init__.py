"""What the Edge Impulse components share, free of transport: parameters, results, rules, metrics, commands, cache.

The words are those of Edge Impulse's own Greengrass components, so that their deployments, topics, payloads and
commands keep working: `parameters` reads their configuration, `reporter` is the one to start reading with.
"""
