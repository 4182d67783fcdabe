-- POST /jobs, each with a key of its own; prints what came of it as one line of JSON.
local started = 0

function setup(thread)
   thread:set("number", started)
   started = started + 1
end

function init(arguments)
   math.randomseed(os.time() * 100 + number)
   run, sent = string.format("%08x%08x", math.random(0, 0x7fffffff), math.random(0, 0x7fffffff)), 0
   body = '{"kind": "classifier", "name": "load", "tags": ["bench"], "epochs": 3}'
   headers = {["Content-Type"] = "application/json", ["Connection"] = arguments[1] or "keep-alive"}
   run = run .. (arguments[2] or "")
end

function request()
   sent = sent + 1
   headers["Idempotency-Key"] = run .. "-" .. number .. "-" .. sent
   return wrk.format("POST", "/jobs", headers, body)
end

function done(summary, latency)
   local failed = summary.errors
   io.write(string.format(
      '\n{"per_s": %.1f, "count": %d, "failures": %d, "p50_ms": %.2f, "p99_ms": %.2f}\n',
      summary.requests / summary.duration * 1e6, summary.requests,
      failed.connect + failed.read + failed.write + failed.status + failed.timeout,
      latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
