//! What a refusal advises has to help.

use super::{connect, policy};
use crate::policy::{RequestForm, Verdict};

/// No remedy is told that would not help: `tunnel` reaches the ports of egress.ports only.
#[test]
fn the_remedy_for_an_unlisted_host_names_its_port_where_that_is_closed() {
    let policy = policy("egress: { default: deny }");
    for (port, remedy) in [
        (443, "or set egress.default: tunnel"),
        (22, "or set egress.default: tunnel and add 22 to egress.ports"),
    ] {
        let target = connect(&format!("a.test:{port}"));
        let Verdict::Deny(_, denial) = policy.route(&target, RequestForm::Connect) else {
            panic!("{target} is listed");
        };
        assert!(denial.to_string().ends_with(remedy), "{denial}");
    }
}
