#![no_main]

use http::Method;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    let method = if kind % 2 == 0 { Method::GET } else { Method::HEAD };
    outrider::fuzz::response_head(&method, data);
});
