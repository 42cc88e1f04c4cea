# Mojolicious: one process with an event loop and state.
use strict;
use warnings;
use Mojolicious::Lite -signatures;

my @words;
get '/' => sub ($c) { $c->render(text => 'mojolicious answers') };
get '/keep' => sub ($c) { push @words, 'kept'; $c->render(text => 'ok') };
get '/words' => sub ($c) { $c->render(text => "words: @words") };
app->start;
