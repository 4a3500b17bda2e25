//! Answers as services send them. Each row names its source.

use super::{MADE, assert_says, says};

/// docs.github.com, "Rate limits for the REST API": epoch seconds, the resource, 403 or 429 at zero; secondary
/// limits with Retry-After, or a minute.
#[test]
fn github() {
    let fields = |remaining: u32| {
        format!(
            "X-RateLimit-Limit: 60\nX-RateLimit-Remaining: {remaining}\nX-RateLimit-Used: {}\n\
             X-RateLimit-Reset: {}\nX-RateLimit-Resource: core\nX-GitHub-Request-Id: 1",
            60 - remaining,
            MADE + 1_800,
        )
    };
    let core = "core: 56 of 60 for 30m";
    assert_eq!(says(200, &fields(56)), core);
    assert_eq!(says(403, &fields(56)), core);
    assert_eq!(says(403, &fields(0)), "pause 30m of core; core: 0 of 60 for 30m");
    assert_eq!(says(429, &fields(0)), "pause 30m of core; core: 0 of 60 for 30m");
    let secondary = format!("Retry-After: 60\n{}", fields(56));
    assert_eq!(says(403, &secondary), format!("pause 1m; {core}"));
    assert_eq!(says(429, &fields(56)), format!("pause 1m; {core}"));
    assert_eq!(says(429, "X-GitHub-Request-Id: 1"), "pause 1m");
}

/// NREL/api-umbrella, src/api-umbrella/proxy/middleware/rate_limit.lua; api.data.gov/docs/rate-limits.
#[test]
fn api_data_gov() {
    assert_says(&[
        (
            200,
            "X-RateLimit-Limit: 1000\nX-RateLimit-Remaining: 998",
            "quota: 998 of 1000",
        ),
        // api.data.gov says so itself, on every answer; the age is 0 on every one, too.
        (
            200,
            "Age: 0\nX-RateLimit-Limit: 1000\nX-RateLimit-Remaining: 998\nX-Api-Umbrella-Request-ID: aelqdj9l",
            "quota: 998 of 1000 per 1h",
        ),
        (
            429,
            "X-RateLimit-Limit: 1000\nX-RateLimit-Remaining: 0\nRetry-After: 2389",
            "pause 39m 49s; quota: 0 of 1000",
        ),
        (
            429,
            "X-RateLimit-Limit: 1000\nX-RateLimit-Remaining: 0",
            "refused; quota: 0 of 1000",
        ),
    ]);
}

#[test]
fn a_reset_is_read_in_every_unit() {
    for (reset, expected) in [
        // zalando/restful-api-guidelines#379: seconds here, epoch seconds at GitHub, Okta, Vimeo.
        ("2513", "41m 53s"),
        ("1784111837", "1m"),
        ("1784111837.5", "1m 500ms"),
        // RocketChat/docs-old#1358: milliseconds.
        ("1784111837000", "1m"),
        // pubg/api-documentation-content#61: micro- or nanoseconds.
        ("1784111837000000", "1m"),
        ("1784111837000000000", "1m"),
        // rachio.discoursehosting.net/t/api-rate-limiting-enhancements/10944.
        ("2026-07-15T10:37:17Z", "1m"),
        ("2026-07-15T10:37:17.250+00:00", "1m 250ms"),
        // JRACLOUD-69262: yyyy-MM-ddTHH:mmZ.
        ("2026-07-15T10:38Z", "1m 43s"),
        ("Wed, 15 Jul 2026 10:37:17 GMT", "1m"),
        // throttled/throttled#55.
        ("6", "6s"),
        ("2026-07-15T12:37:17+02:00", "1m"),
        // developer.lemlist.com/api-reference/getting-started/rate-limits, and older copies of the README of
        // rate-limiter-flexible: a Date of JavaScript as a text.
        (
            "Wed Jul 15 2026 12:37:17 GMT+0200 (Central European Summer Time)",
            "1m",
        ),
        ("Wed Jul 15 2026 10:37:17 GMT+0000", "1m"),
    ] {
        let fields = format!("X-RateLimit-Remaining: 1\nX-RateLimit-Reset: {reset}");
        assert_eq!(
            says(200, &fields),
            format!("quota: 1 of ? for {expected}"),
            "{reset}"
        );
    }
    for reset in [
        "2013-07-01T00:00:00Z",
        "1372700873",
        "Tue Feb 16 2021 09:02:42 GMT+0100 (Central European Standard Time)",
        "Tue Feb 16 2021 09:02:42",
        "Tue Feb 30 2021 09:02:42 GMT+0100",
        "Wed Jul 15 2026 12:37:17 GMT+2",
    ] {
        let said = says(
            200,
            &format!("X-RateLimit-Remaining: 1\nX-RateLimit-Reset: {reset}"),
        );
        assert!(
            said.starts_with("quota: 1 of ?; ignored x-ratelimit-reset: "),
            "{said}"
        );
    }
}

#[test]
fn vendors() {
    assert_says(&[
        // docs.discord.com/developers/topics/rate-limits.
        (
            200,
            "X-RateLimit-Limit: 5\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 1470173023\n\
             X-RateLimit-Reset-After: 1.25\nX-RateLimit-Bucket: abcd1234\nDate: Tue, 02 Aug 2016 21:23:42 GMT",
            "abcd1234: 0 of 5 for 1s 250ms",
        ),
        // developer.okta.com/docs/reference/rl-best-practices.
        (
            200,
            "X-Rate-Limit-Limit: 1200\nX-Rate-Limit-Remaining: 1199\nX-Rate-Limit-Reset: 1609459200\n\
             Date: Thu, 31 Dec 2020 23:59:30 GMT",
            "quota: 1199 of 1200 for 30s",
        ),
        (
            429,
            "X-Rate-Limit-Limit: 0\nX-Rate-Limit-Remaining: 0\nX-Rate-Limit-Reset: 1609459200\n\
             Date: Thu, 31 Dec 2020 23:59:30 GMT",
            "pause 30s; quota: 0 of ? for 30s",
        ),
        // api.slack.com/docs/rate-limits.
        (429, "Retry-After: 30", "pause 30s"),
        // community.openai.com/t/1268905, thoughtbot.com/blog/openai-rate-limits.
        (
            200,
            "x-ratelimit-limit-requests: 5000\nx-ratelimit-remaining-requests: 4999\n\
             x-ratelimit-reset-requests: 12ms\nx-ratelimit-limit-tokens: 160000\nx-ratelimit-reset-tokens: 6m0s",
            "requests: 4999 of 5000 for 12ms",
        ),
        (
            429,
            "x-ratelimit-remaining-requests: 0\nx-ratelimit-reset-requests: 6m0s",
            "pause 6m of requests; requests: 0 of ? for 6m",
        ),
        (
            200,
            "x-ratelimit-remaining-requests: 1\nx-ratelimit-reset-requests: 1h2m1.5s",
            "requests: 1 of ? for 1h 2m 1s 500ms",
        ),
        // platform.claude.com/docs/en/api/rate-limits.
        (
            200,
            "anthropic-ratelimit-requests-limit: 50\nanthropic-ratelimit-requests-remaining: 49\n\
             anthropic-ratelimit-requests-reset: 2025-10-25T12:00:00Z\nanthropic-ratelimit-tokens-limit: 50000\n\
             Date: Sat, 25 Oct 2025 11:59:00 GMT",
            "requests: 49 of 50 for 1m",
        ),
        // docs.rapidapi.com, "Response Headers": the plan, and the window beside it.
        (
            200,
            "x-ratelimit-requests-limit: 500\nx-ratelimit-requests-remaining: 499\nx-ratelimit-requests-reset: 3600\n\
             x-ratelimit-limit: 10\nx-ratelimit-remaining: 9",
            "quota: 9 of 10; requests: 499 of 500 for 1h",
        ),
        // shopify.dev/docs/api/admin-rest/usage/rate-limits.
        (200, "X-Shopify-Shop-Api-Call-Limit: 32/40", "shop: 8 of 40"),
        (
            429,
            "X-Shopify-Shop-Api-Call-Limit: 41/40\nRetry-After: 2.0",
            "pause 2s of shop; shop: 0 of 40",
        ),
        (
            200,
            "X-Shopify-Shop-Api-Call-Limit: 32",
            "ignored x-shopify-shop-api-call-limit: not a fraction",
        ),
        // developers.hubspot.com/docs/api/usage-details.
        (
            200,
            "X-HubSpot-RateLimit-Daily: 250000\nX-HubSpot-RateLimit-Daily-Remaining: 249999\n\
             X-HubSpot-RateLimit-Secondly: 10\nX-HubSpot-RateLimit-Secondly-Remaining: 9\n\
             X-HubSpot-RateLimit-Max: 100\nX-HubSpot-RateLimit-Remaining: 99\n\
             X-HubSpot-RateLimit-Interval-Milliseconds: 10000",
            "day: 249999 of 250000 per 1day; second: 9 of 10 per 1s; interval: 99 of 100 per 10s",
        ),
        // Kong/kong, kong/plugins/rate-limiting.
        (
            200,
            "X-RateLimit-Limit-Minute: 5\nX-RateLimit-Remaining-Minute: 4\nX-RateLimit-Limit-Hour: 100\n\
             X-RateLimit-Remaining-Hour: 99\nRateLimit-Limit: 5\nRateLimit-Remaining: 4\nRateLimit-Reset: 31",
            "minute: 4 of 5 for 31s per 1m; hour: 99 of 100 per 1h",
        ),
        // docs.docker.com, "Pull usage and limits".
        (
            200,
            "ratelimit-limit: 100;w=21600\nratelimit-remaining: 20;w=21600\ndocker-ratelimit-source: 192.0.2.1",
            "quota: 20 of 100 per 6h",
        ),
        // create.roblox.com/docs/cloud/reference/rate-limits; Envoy with DRAFT_VERSION_03.
        (
            200,
            "x-ratelimit-limit: 1000, 1000;w=60, 5000;w=3600\nx-ratelimit-remaining: 998\nx-ratelimit-reset: 20",
            "quota: 998 of 1000 for 20s per 1m",
        ),
        // GitLab, "Rate limits": epoch seconds, and the name of the throttle.
        (
            429,
            "RateLimit-Limit: 60\nRateLimit-Observed: 67\nRateLimit-Remaining: 0\nRateLimit-Reset: 1609844400\n\
             RateLimit-ResetTime: Tue, 05 Jan 2021 11:00:00 GMT\nRateLimit-Name: throttle_authenticated_web\n\
             Retry-After: 30\nDate: Tue, 05 Jan 2021 10:59:30 GMT",
            "pause 30s of throttle_authenticated_web; throttle_authenticated_web: 0 of 60 for 30s",
        ),
        // r/redditdev, "Formal ratelimiting headers": fractions.
        (
            200,
            "x-ratelimit-remaining: 595.0\nx-ratelimit-used: 5\nx-ratelimit-reset: 143",
            "quota: 595 of ? for 2m 23s",
        ),
        // help.pexels.com 900005368726: at 429 only the reset may be left.
        (429, "X-RateLimit-Reset: 30", "pause 30s; quota: ? of ? for 30s"),
        // Cloudflare's API, "Rate limits".
        (
            200,
            "Ratelimit: \"default\";r=50;t=30\nRatelimit-Policy: \"default\";q=1200;w=300",
            "default: 50 of 1200 for 30s per 5m",
        ),
        // developer.atlassian.com/cloud/jira/platform/rate-limiting.
        (
            429,
            "Retry-After: 5\nX-RateLimit-Reset: 2026-03-26T16:00Z\nX-RateLimit-Limit: 350\nX-RateLimit-Remaining: 0\n\
             Date: Thu, 26 Mar 2026 15:59:30 GMT",
            "pause 5s; quota: 0 of 350 for 30s",
        ),
    ]);
}
