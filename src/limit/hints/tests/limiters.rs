//! Answers as packages for limits write them, each with the very fields that it sends: the same limit of 5 in 6 s
//! unless another is said. The clock of the tests is MADE, 1784111777.

use super::{assert_says, says};

/// npm: on an allowed answer and on the refused one.
#[test]
fn packages_of_node() {
    assert_says(&[
        // express-rate-limit 8.7, default. Its reset is rounded up.
        (
            200,
            "X-RateLimit-Limit: 5\nX-RateLimit-Remaining: 4\nX-RateLimit-Reset: 1784111783",
            "quota: 4 of 5 for 6s",
        ),
        (
            429,
            "X-RateLimit-Limit: 5\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 1784111783\nRetry-After: 6",
            "pause 6s; quota: 0 of 5 for 6s",
        ),
        // The same, draft-7.
        (
            200,
            "RateLimit-Policy: 5;w=6\nRateLimit: limit=5, remaining=4, reset=6",
            "quota: 4 of 5 for 6s per 6s",
        ),
        (
            429,
            "RateLimit-Policy: 5;w=6\nRateLimit: limit=5, remaining=0, reset=2\nRetry-After: 2",
            "pause 2s; quota: 0 of 5 for 2s per 6s",
        ),
        // draft-8, with the legacy fields beside it: one counter, and a name that says nothing.
        (
            200,
            "X-RateLimit-Limit: 5\nX-RateLimit-Remaining: 4\nX-RateLimit-Reset: 1784111783\n\
             RateLimit-Policy: \"5-in-6sec\"; q=5; w=6; pk=:YmM2ZDE1MGI0MDVi:\nRateLimit: \"5-in-6sec\"; r=4; t=6",
            "quota: 4 of 5 for 6s per 6s",
        ),
        (
            429,
            "X-RateLimit-Limit: 5\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 1784111778\nRetry-After: 1\n\
             RateLimit-Policy: \"5-in-6sec\"; q=5; w=6; pk=:YmM2ZDE1MGI0MDVi:\nRateLimit: \"5-in-6sec\"; r=0; t=1",
            "pause 1s; quota: 0 of 5 for 1s per 6s",
        ),
        (
            200,
            "RateLimit-Policy: \"100-in-1.5hrs\"; q=100; w=5400\nRateLimit: \"100-in-1.5hrs\"; r=99; t=5400",
            "quota: 99 of 100 for 1h 30m per 1h 30m",
        ),
        // With a custom identifier, and two limiters on one route.
        (
            200,
            "RateLimit-Policy: \"search\"; q=5; w=6\nRateLimit: \"search\"; r=4; t=6",
            "search: 4 of 5 for 6s per 6s",
        ),
        (
            200,
            "RateLimit-Policy: \"5-in-6sec\"; q=5; w=6\nRateLimit: \"5-in-6sec\"; r=4; t=6\n\
             RateLimit-Policy: \"20-in-1min\"; q=20; w=60\nRateLimit: \"20-in-1min\"; r=19; t=60",
            "5-in-6sec: 4 of 5 for 6s per 6s; 20-in-1min: 19 of 20 for 1m per 1m",
        ),
        // @fastify/rate-limit 11.2: seconds that are left.
        (
            200,
            "x-ratelimit-limit: 5\nx-ratelimit-remaining: 4\nx-ratelimit-reset: 6",
            "quota: 4 of 5 for 6s",
        ),
        (
            429,
            "x-ratelimit-limit: 5\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 6\nretry-after: 6",
            "pause 6s; quota: 0 of 5 for 6s",
        ),
        // koa-ratelimit 6.0: epoch seconds with a fraction; Retry-After is cut.
        (
            200,
            "X-RateLimit-Limit: 5\nX-RateLimit-Remaining: 4\nX-RateLimit-Reset: 1784111782.75",
            "quota: 4 of 5 for 5s 750ms",
        ),
        (
            429,
            "X-RateLimit-Limit: 5\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 1784111777.25\nRetry-After: 0",
            "pause soon; quota: 0 of 5 for 250ms",
        ),
        // hono-rate-limiter 0.5: draft 6.
        (
            429,
            "RateLimit-Policy: 5;w=6\nRateLimit-Limit: 5\nRateLimit-Remaining: 0\nRateLimit-Reset: 6",
            "pause 6s; quota: 0 of 5 for 6s per 6s",
        ),
        // @nestjs/throttler 6.7: a refusal has Retry-After only; with names the suffix is the name.
        (
            200,
            "X-RateLimit-Limit: 5\nX-RateLimit-Remaining: 4\nX-RateLimit-Reset: 6",
            "quota: 4 of 5 for 6s",
        ),
        (429, "Retry-After: 6", "pause 6s"),
        (
            200,
            "X-RateLimit-Limit-short: 3\nX-RateLimit-Remaining-short: 2\nX-RateLimit-Reset-short: 1\n\
             X-RateLimit-Limit-long: 100\nX-RateLimit-Remaining-long: 99\nX-RateLimit-Reset-long: 60",
            "short: 2 of 3 for 1s; long: 99 of 100 for 1m",
        ),
        (429, "Retry-After-short: 1", "pause 1s of short"),
        // better-auth 1.7.
        (429, "X-Retry-After: 10", "pause 10s"),
        // express-limiter 1.6.
        (
            429,
            "X-RateLimit-Limit: 5\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 1784111783\nRetry-After: 5.968",
            "pause 5s 968ms; quota: 0 of 5 for 6s",
        ),
        // @orpc/experimental-ratelimit 1.15: epoch milliseconds.
        (
            200,
            "ratelimit-limit: 5\nratelimit-remaining: 4\nratelimit-reset: 1784111782500",
            "quota: 4 of 5 for 5s 500ms",
        ),
        (
            429,
            "ratelimit-limit: 5\nratelimit-remaining: 0\nratelimit-reset: 1784111782500\nretry-after: 6",
            "pause 6s; quota: 0 of 5 for 5s 500ms",
        ),
        // @modelcontextprotocol/sdk 1.32, its OAuth routes.
        (
            429,
            "RateLimit-Policy: 20;w=3600\nRateLimit-Limit: 20\nRateLimit-Remaining: 0\nRateLimit-Reset: 3600\n\
             Retry-After: 3600",
            "pause 1h; quota: 0 of 20 for 1h per 1h",
        ),
        // rate-limiter-flexible 11.4: the example of its README, older copies of it.
        (
            200,
            "Retry-After: 6\nX-RateLimit-Limit: 5\nX-RateLimit-Remaining: 4\nX-RateLimit-Reset: 1784111783",
            "quota: 4 of 5 for 6s",
        ),
        (
            429,
            "Retry-After: 6\nX-RateLimit-Limit: 5\nX-RateLimit-Remaining: 0\n\
             X-RateLimit-Reset: Wed Jul 15 2026 10:36:23 GMT+0000 (Coordinated Universal Time)",
            "pause 6s; quota: 0 of 5 for 6s",
        ),
        // express-throttle 2.0.
        (429, "", "refused"),
        // hapi-rate-limit: epoch milliseconds; less than nothing remains.
        (
            200,
            "X-RateLimit-PathLimit: 10\nX-RateLimit-PathRemaining: 9\nX-RateLimit-PathReset: 1784111837000\n\
             X-RateLimit-UserLimit: 300\nX-RateLimit-UserRemaining: 299\nX-RateLimit-UserReset: 1784112377000\n\
             X-RateLimit-UserPathLimit: 5\nX-RateLimit-UserPathRemaining: 4\nX-RateLimit-UserPathReset: 1784111783000",
            "path: 9 of 10 for 1m; user: 299 of 300 for 10m; userpath: 4 of 5 for 6s",
        ),
        (
            429,
            "X-RateLimit-PathLimit: 10\nX-RateLimit-PathRemaining: -1\nX-RateLimit-PathReset: 1784111837000\n\
             X-RateLimit-UserLimit: 300\nX-RateLimit-UserRemaining: 280\nX-RateLimit-UserReset: 1784112377000",
            "pause 1m of path; path: 0 of 10 for 1m; user: 280 of 300 for 10m",
        ),
    ]);
}

/// PyPI and crates.
#[test]
fn packages_of_python_and_rust() {
    assert_says(&[
        // slowapi 0.1: a float, a second later than the window's end, and Retry-After on each answer.
        (
            200,
            "X-RateLimit-Limit: 5\nX-RateLimit-Remaining: 4\nX-RateLimit-Reset: 1784111784.2\nRetry-After: 7",
            "quota: 4 of 5 for 7s 200ms",
        ),
        (
            429,
            "X-RateLimit-Limit: 5\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 1784111784.2\nRetry-After: 7",
            "pause 7s; quota: 0 of 5 for 7s 200ms",
        ),
        // Flask-Limiter 4.1.
        (
            200,
            "X-RateLimit-Limit: 5\nX-RateLimit-Remaining: 4\nX-RateLimit-Reset: 1784111783\nRetry-After: 6",
            "quota: 4 of 5 for 6s",
        ),
        // fastapi-limiter 0.2, and what it sent before.
        (429, "", "refused"),
        (429, "Retry-After: 6", "pause 6s"),
        // quart-rate-limiter 0.12: the reset says when all is back, Retry-After when one may go.
        (
            429,
            "RateLimit-Limit: 5\nRateLimit-Remaining: 0\nRateLimit-Reset: 20\nRetry-After: 4\nRetry-After: 4",
            "pause 4s; quota: 0 of 5 for 20s",
        ),
        // tower_governor 0.8, actix-governor 0.10: cut to whole seconds.
        (429, "x-ratelimit-after: 0\nretry-after: 0", "pause soon"),
        (
            200,
            "x-ratelimit-limit: 1\nx-ratelimit-remaining: 0",
            "quota: 0 of 1",
        ),
        (
            429,
            "x-ratelimit-limit: 1\nx-ratelimit-remaining: 0\nx-ratelimit-after: 3\nretry-after: 3",
            "pause 3s; quota: 0 of 1",
        ),
        // salvo: the epoch is cut, so that it is past while it still refuses.
        (
            429,
            "x-ratelimit-limit: 5\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1784111776",
            "pause soon; quota: 0 of 5 for 0s",
        ),
    ]);
}

#[test]
fn proxies_and_others() {
    assert_says(&[
        // nginx limit_req, HAProxy deny_status, Debian's rack-attack.
        (429, "Server: nginx", "refused"),
        (403, "Server: haproxy", "nothing"),
        // Envoy's local_ratelimit with its option: the reset is the time to the next token.
        (
            200,
            "x-ratelimit-limit: 5, 5;w=6\nx-ratelimit-remaining: 4\nx-ratelimit-reset: 0",
            "quota: 4 of 5 per 6s",
        ),
        (
            429,
            "x-ratelimit-limit: 5, 5;w=6\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 6",
            "pause 6s; quota: 0 of 5 for 6s per 6s",
        ),
        // Wikimedia, behind Envoy's global limit.
        (429, "x-envoy-ratelimited: true\nretry-after: 34", "pause 34s"),
        // Kong's rate-limiting: one counter, reported twice. The minute is the calendar's.
        (
            200,
            "RateLimit-Limit: 5\nRateLimit-Remaining: 4\nRateLimit-Reset: 43\n\
             X-RateLimit-Limit-Minute: 5\nX-RateLimit-Remaining-Minute: 4",
            "minute: 4 of 5 for 43s per 1m",
        ),
        (
            429,
            "RateLimit-Limit: 5\nRateLimit-Remaining: 0\nRateLimit-Reset: 43\nRetry-After: 43\n\
             X-RateLimit-Limit-Minute: 5\nX-RateLimit-Remaining-Minute: 0",
            "pause 43s of minute; minute: 0 of 5 for 43s per 1m",
        ),
        // Bucket4j's starter, OpenSky.
        (200, "X-Rate-Limit-Remaining: 399", "quota: 399 of ?"),
        (429, "X-Rate-Limit-Retry-After-Seconds: 86", "pause 1m 26s"),
        // Traefik.
        (429, "Retry-After: 0\nX-Retry-In: 105.7ms", "pause 105ms 700us"),
        // ListenBrainz.
        (
            200,
            "X-RateLimit-Limit: 30\nX-RateLimit-Remaining: 29\nX-RateLimit-Reset-In: 10\nX-RateLimit-Reset: 1784111787",
            "quota: 29 of 30 for 10s",
        ),
        // Mistral, Cerebras: requests in a window, and tokens, which are left out.
        (
            200,
            "x-ratelimit-limit-req-minute: 60\nx-ratelimit-remaining-req-minute: 59\n\
             x-ratelimit-limit-tokens-minute: 50000\nx-ratelimit-remaining-tokens-minute: 47300\n\
             x-ratelimit-limit-requests-day: 1000\nx-ratelimit-remaining-requests-day: 999\n\
             x-ratelimit-reset-requests-day: 4020.5",
            "req-minute: 59 of 60 per 1m; requests-day: 999 of 1000 for 1h 7m 500ms per 1day",
        ),
        // Imgur: two counters, the second without a reset.
        (
            200,
            "X-RateLimit-UserLimit: 500\nX-RateLimit-UserRemaining: 499\nX-RateLimit-UserReset: 1784112777\n\
             X-RateLimit-ClientLimit: 12500\nX-RateLimit-ClientRemaining: 12499",
            "user: 499 of 500 for 16m 40s; client: 12499 of 12500",
        ),
        // Names that people made up.
        (
            200,
            "X-RateLimit-User-Limit: 50\nX-RateLimit-User-Remaining: 49\nX-RateLimit-User-Reset: 2026-07-15T10:37:17.000Z\n\
             X-RateLimit-User-Tier: free\nX-RateLimit-User-Limit-Hour: 100\nX-RateLimit-User-Remaining-Hour: 98",
            "user: 49 of 50 for 1m; user-hour: 98 of 100 per 1h",
        ),
        // One part alone, or one that is not a number, may be about anything.
        (
            200,
            "X-RateLimit-Limit-Type: user\nX-RateLimit-Limit-Burst: 7\nX-RateLimit-Remaining-Percent: 7",
            "nothing",
        ),
        (
            200,
            "X-RateLimit-Limit: 5\nX-RateLimit-Remaining: 4\nX-RateLimit-Reset-Ms: 1500",
            "quota: 4 of 5 for 1s 500ms",
        ),
    ]);
    let many = (0..40).map(|i| format!("X-RateLimit-Limit-q{i}: 9\nX-RateLimit-Remaining-q{i}: 1\n"));
    let said = says(200, &many.collect::<String>());
    assert_eq!(said.matches("1 of 9").count(), 16, "{said}");
}

/// A response that ends with its head: "Trailers-Only" in gRPC's protocol over HTTP/2.
#[test]
fn grpc() {
    // As grpcio 1.85 writes them, some without padding.
    const HALF: &str =
        "CAgSBXF1b3RhGjYKKHR5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnJwYy5SZXRyeUluZm8SCgoICAMQgMq17gE=";
    const ZERO: &str = "CAgSBXF1b3RhGi4KKHR5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnJwYy5SZXRyeUluZm8SAgoA";
    const NEGATIVE: &str =
        "CAgSBXF1b3RhGjkKKHR5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnJwYy5SZXRyeUluZm8SDQoLCPv//////////wE=";
    const HELP: &str = "CAgSBXF1b3RhGisKI3R5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnJwYy5IZWxwEgQKAggH";
    let head = "content-type: application/grpc\ngrpc-status:";
    for (status, fields, expected) in [
        (200, "8".to_owned(), "refused"),
        (200, "14".to_owned(), "nothing"),
        (200, "0".to_owned(), "nothing"),
        (200, "7".to_owned(), "nothing"),
        (200, "".to_owned(), "nothing"),
        (
            200,
            format!("8\ngrpc-status-details-bin: {HALF}"),
            "pause 3s 500ms",
        ),
        (200, format!("8\ngrpc-status-details-bin: {ZERO}"), "pause soon"),
        (200, format!("8\ngrpc-status-details-bin: {NEGATIVE}"), "refused"),
        (200, format!("8\ngrpc-status-details-bin: {HELP}"), "refused"),
        (
            200,
            "8\ngrpc-status-details-bin: !".to_owned(),
            "refused; ignored grpc-status-details-bin: not Base64",
        ),
        // Truncated: an incomplete field is ignored.
        (
            200,
            "8\ngrpc-status-details-bin: CAgSBXF1b3Rh".to_owned(),
            "refused",
        ),
        (200, "8\ngrpc-retry-pushback-ms: 250".to_owned(), "pause 250ms"),
        (200, "8\ngrpc-retry-pushback-ms: -1".to_owned(), "refused"),
        (
            200,
            "8\ngrpc-retry-pushback-ms: soon".to_owned(),
            "refused; ignored grpc-retry-pushback-ms: not a number",
        ),
        // Sent by the libraries for a message that is too large.
        (
            200,
            "8\ngrpc-message: grpc: received message larger than max (5000000 vs. 4194304)".to_owned(),
            "nothing",
        ),
        (
            200,
            "8\ngrpc-message: gRPC message exceeds maximum size 4194304: 5000000".to_owned(),
            "nothing",
        ),
        // UNAVAILABLE is sent for many failures: it is a limit only if something else says so.
        (
            200,
            format!("14\ngrpc-status-details-bin: {HALF}"),
            "pause 3s 500ms",
        ),
        (200, format!("14\ngrpc-status-details-bin: {HELP}"), "nothing"),
        (200, "14\ngrpc-retry-pushback-ms: -1".to_owned(), "nothing"),
        (200, "14\nretry-after: 2".to_owned(), "pause 2s"),
        (200, "14\nx-envoy-ratelimited: true".to_owned(), "refused"),
        (200, "14\ngrpc-message: local_rate_limited".to_owned(), "refused"),
        (200, "14\ngrpc-message: connection refused".to_owned(), "nothing"),
        (
            200,
            "14\nx-ratelimit-limit: 5, 5;w=6\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 6".to_owned(),
            "pause 6s; quota: 0 of 5 for 6s per 6s",
        ),
        (
            200,
            "14\nx-ratelimit-limit: 5\nx-ratelimit-remaining: 3".to_owned(),
            "quota: 3 of 5",
        ),
        // A call that failed for another reason may ask for a pause; that is not a limit.
        (200, "13\nretry-after: 2".to_owned(), "nothing"),
    ] {
        let fields = format!("{head} {fields}");
        assert_eq!(says(status, &fields), expected, "{fields}");
    }
}
