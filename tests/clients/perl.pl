use strict;
my $kind = shift;
for (@ARGV) {
    my ($name, $url) = split /=/, $_, 2;
    print "== $name\n";
    if ($kind eq "lwp") {
        require LWP::UserAgent;
        my $answer = LWP::UserAgent->new(timeout => 10)->get($url);
        print $answer->status_line, " ", $answer->decoded_content, "\n";
    } elsif ($kind eq "mojo") {
        require Mojo::UserAgent;
        my $asked = Mojo::UserAgent->new->get($url);
        print $asked->res->code, " ", $asked->res->body, " ", ($asked->error // {})->{message}, "\n";
    } else {
        require HTTP::Tiny;
        my $answer = HTTP::Tiny->new(timeout => 10)->get($url);
        print "$answer->{status} $answer->{reason} $answer->{content}\n";
    }
}
