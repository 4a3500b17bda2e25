#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| {
    outrider::fuzz::configuration(data);
});
