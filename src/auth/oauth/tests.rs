use super::*;

fn grant(lifetime: Option<u64>) -> IssuedToken {
    let expires = lifetime.map_or(String::new(), |seconds| format!(r#","expires_in":{seconds}"#));
    IssuedToken::read(
        http::StatusCode::OK,
        &crate::message::Fields::new(),
        format!(r#"{{"access_token":"a"{expires}}}"#).as_bytes(),
        false,
        std::iter::empty(),
        SystemTime::now(),
    )
    .unwrap()
}

#[test]
fn a_token_ages_before_it_is_over_and_is_over_before_the_server_says_so() {
    let started = Instant::now();
    for (lifetime, ages, over) in [
        (Some(3600), [2499.0, 2856.0], 3570.0),
        (Some(60), [31.5, 36.0], 45.0),
        (Some(1), [0.525, 0.6], 0.75),
        // The server does not say.
        (None, [399.0, 456.0], 570.0),
        (
            Some(u64::MAX),
            [(365.0 * 86_400.0 - 30.0) * 0.7, (365.0 * 86_400.0 - 30.0) * 0.8],
            365.0 * 86_400.0 - 30.0,
        ),
    ] {
        for (chance, ages) in [(0.0, ages[0]), (1.0, ages[1])] {
            let token = token(&grant(lifetime), started, chance);
            let after = |moment: Instant| moment.duration_since(started).as_secs_f64();
            assert!(
                (after(token.ageing) - ages).abs() < 0.01,
                "{lifetime:?} {:?}",
                after(token.ageing)
            );
            assert!(
                (after(token.over) - over).abs() < 0.01,
                "{lifetime:?} {:?}",
                after(token.over)
            );
            assert!(token.ageing <= token.over);
        }
    }
}
