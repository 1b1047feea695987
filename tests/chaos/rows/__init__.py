"""The rows of the campaign, a module each. A module that is put here is found by itself.

A row is a coroutine marked by `@row`, with its full and its short figures. It takes what it needs from its `Run`:

* `await run.kafka()` for a broker that nobody harms, `await run.own_broker(proxied=True)` for one to be killed, frozen or cut off;
* `Scene` for pipelines with a load, `HttpSinkServer` for the system behind them, `Fleet` for worker processes;
* `run.chance` for everything random, so that a seed repeats it;
* `run.fires(tool.fired)` and `run.must_fire(kind, times)` to prove that the faults fired;
* `run.judge(history, promises)`, `run.claim(holds, what)` and `run.note(name, value)` for what came of it.

Beside it in `tests/chaos/test_row_XX.py` the fixture `short` runs the row at its short figures. The rows that kill a broker or cut
it off are together in one file, where they share one: `test_rows_05_09_17.py`.
"""
