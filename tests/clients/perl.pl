use strict;
my $kind = shift;
for (@ARGV) {
    my ($name, $url) = split /=/, $_, 2;
    print "== $name\n";
    if ($kind eq "lwp") {
        require LWP::UserAgent;
        my $answer = LWP::UserAgent->new(timeout => 10)->get($url);
        print $answer->status_line, " ", $answer->decoded_content, "\n";
    } else {
        require HTTP::Tiny;
        my $answer = HTTP::Tiny->new(timeout => 10)->get($url);
        print "$answer->{status} $answer->{reason} $answer->{content}\n";
    }
}
