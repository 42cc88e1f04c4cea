# Plain PSGI, under starman.
use strict;
use warnings;
sub {
    my $env = shift;
    return [200, ['Content-Type' => 'text/plain'], ["starman answers $env->{PATH_INFO}\n"]];
};
