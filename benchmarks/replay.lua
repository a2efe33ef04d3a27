-- For wrk: replay the cookies of a file, one session after the other, and print the figures as JSON.
--
--     wrk ... -s replay.lua URL -- FILE
--
-- The file has many more sessions than there are connections, and they take turns, so that no two
-- requests under way share one.

local requests = {}
local position = 0

function init(arguments)
    for cookie in io.lines(arguments[1]) do
        wrk.headers["Cookie"] = cookie
        requests[#requests + 1] = wrk.format("GET")
    end
end

function request()
    position = position % #requests + 1
    return requests[position]
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        'FIGURES {"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "bad": %d}\n',
        summary.requests, summary.duration / 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout
    ))
end
