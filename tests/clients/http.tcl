package require http
package require tls
set kind [lindex $argv 0]
http::register https 443 [list tls::socket -autoservername true -require true -cafile $env(SSL_CERT_FILE)]
if {$kind eq "autoproxy"} {
    package require autoproxy
    autoproxy::init
    http::register https 443 [list autoproxy::tls_socket -require true -cafile $env(SSL_CERT_FILE)]
}
foreach cell [lrange $argv 1 end] {
    set at [string first = $cell]
    puts "== [string range $cell 0 $at-1]"
    if {[catch {
        set token [http::geturl [string range $cell $at+1 end] -timeout 10000]
        puts "[http::code $token] [http::data $token] [http::error $token]"
    } error]} { puts $error }
}
