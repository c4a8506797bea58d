# Perl's DBD::Pg: prepares on the server at the first execution, has its own transactions.
# SPDX-License-Identifier: Apache-2.0
use strict;
use warnings;
use utf8;
use DBI;
use DBD::Pg qw(:pg_types :async);

binmode STDOUT, ':encoding(UTF-8)';
$| = 1;
my @own;

sub test { my ($name, $two, $run) = @_; push @own, [$name, $two, $run]; return }

sub open_with {
    my %options = @_;
    my %attributes = %{ delete $options{attributes} || {} };
    my $dsn = "dbi:Pg:host=$ENV{PGHOST};port=$ENV{PGPORT};dbname=$ENV{PGDATABASE};sslmode=verify-full;sslrootcert=$ENV{PGSSLROOTCERT};connect_timeout=20";
    $dsn .= ";$_='$options{$_}'" for sort keys %options;
    return DBI->connect($dsn, $ENV{PGUSER}, $ENV{PGPASSWORD},
        { AutoCommit => 1, RaiseError => 1, PrintError => 0, PrintWarn => 0, %attributes });
}

sub error {
    my ($e) = @_;
    my $state = $DBI::state // '';
    $e =~ s/ at \S+ line \d+\.?\n?$//;
    $e =~ s/connection to server at .*? failed: //;
    $e =~ s/^DBI connect\(.*?\) failed: /connect: /;
    $e = (split /\n/, $e)[0] // '';
    return "!$state $e";
}

sub show {
    my ($v) = @_;
    return 'NULL' unless defined $v;
    return '{' . join(',', map { show($_) } @$v) . '}' if ref $v eq 'ARRAY';
    return $v;
}

sub rows {
    my ($s) = @_;
    return '{' . $s->rows . '}' unless $s->{NUM_OF_FIELDS};
    my $out = '(' . join(',', map { "$s->{NAME}[$_]:$s->{pg_type}[$_]" } 0 .. $s->{NUM_OF_FIELDS} - 1) . ')';
    while (my $row = $s->fetchrow_arrayref) {
        $out .= '[' . join(',', map { show($_) } @$row) . ']';
    }
    return $out;
}

sub run {
    my ($c, $sql, @values) = @_;
    my $s = $c->prepare($sql, { pg_placeholder_dollaronly => 1 });
    $s->execute(@values);
    return rows($s);
}

sub failing {
    my ($code) = @_;
    my $r = eval { show($code->()) };
    return defined $r ? $r : error($@);
}

my %kept;

sub arg {
    my ($c, $sql, @values) = @_;
    my $s = $kept{"$c"}{$sql} //= $c->prepare($sql, { pg_placeholder_dollaronly => 1 });
    $s->execute(@values);
    return rows($s);
}

sub close_it { my ($c) = @_; delete $kept{"$c"}; $c->disconnect; return }

sub steps {
    my @lines = @_;
    my (@out, %open);
    for my $line (@lines) {
        my $times = 1;
        my ($verb, $rest) = split / /, $line, 2;
        if ($verb eq 'times') {
            ($times, $verb, $rest) = split / /, $rest, 3;
        }
        my ($name, $text) = split / /, $rest, 2;
        $text //= '';
        my @values;
        if ($verb eq 'arg') {
            my ($sql, $tail) = split / <-/, $text, 2;
            $text = $sql;
            @values = map { s/^\s+|\s+$//gr } split /\|/, $tail, -1;
        }
        my ($last, $count);
        for my $i (0 .. $times) {
            my $result;
            if ($i < $times) {
                $result = eval {
                    if ($verb eq 'open') {
                        my %options = map { my ($k, $v) = split /=/, s/^\s+|\s+$//gr, 2; ($k => $v) } grep { /\S/ } split /;;/, $text;
                        $open{$name} = open_with(%options);
                        '+';
                    } elsif (!$open{$name}) {
                        '(not connected)';
                    } elsif ($verb eq 'close') {
                        close_it(delete $open{$name});
                        '-';
                    } else {
                        $verb eq 'run' ? run($open{$name}, $text) : arg($open{$name}, $text, @values);
                    }
                } // error($@);
                if (defined $last && $last eq $result) { $count++; next }
            }
            push @out, $count > 1 ? "$last x$count" : $last if defined $last;
            ($last, $count) = ($result, 1);
        }
    }
    close_it($_) for values %open;
    return @out;
}

test('types round trip', 0, sub {
    my $c = open_with();
    my @out;
    for (['text', "it's ü 世界😀"], ['int8', '1152921504606846976'], ['numeric', '12345.678901234567890'], ['bool', 't'], ['float8', 1.25],
        ['int[]', [1, 2, undef]], ['text[]', ['a', 'b,c', 'd"e']], ['jsonb', '{"k": [1]}'], ['text', undef], ['date', '2024-02-29'],
        ['timestamptz', '2024-02-29 12:34:56.789+00']) {
        my ($type, $v) = @$_;
        push @out, failing(sub { run($c, "SELECT \$1::$type AS v", $v) });
    }
    my $s = $c->prepare('SELECT ?::bytea');
    $s->bind_param(1, "\x00\x01\xff", { pg_type => PG_BYTEA });
    $s->execute;
    push @out, unpack 'H*', $s->fetchrow_array;
    undef $s;
    close_it($c);
    return @out;
});

test('server-side prepare, always, never, at once', 0, sub {
    my @out;
    for my $a ({ pg_server_prepare => 0 }, { pg_server_prepare => 1, pg_switch_prepared => 1 }, { pg_server_prepare => 1, pg_switch_prepared => 5 }) {
        my $c = open_with(attributes => $a);
        my $s = $c->prepare('SELECT 100 / ?::int', { pg_prepare_now => $a->{pg_server_prepare} });
        for my $v (1, 2, 0, 4, 5, 0, 10) {
            push @out, failing(sub { $s->execute($v); rows($s) });
        }
        undef $s;
        push @out, run($c, "SELECT 'on'");
        close_it($c);
    }
    return @out;
});

test('300 prepared statements', 0, sub {
    my $c = open_with();
    my @all = map { $c->prepare("SELECT $_ + ?::int", { pg_switch_prepared => 1 }) } 0 .. 299;
    my $sum = 0;
    for (1 .. 2) {
        for my $s (@all) { $s->execute(1); $sum += ($s->fetchrow_array)[0]; $s->finish }
    }
    undef @all;
    my $on = run($c, "SELECT 'on'");
    close_it($c);
    return $sum, $on;
});

test('statement that goes in a failed transaction', 0, sub {
    my $c = open_with(attributes => { AutoCommit => 0 });
    my $s = $c->prepare('SELECT 1 / ?::int', { pg_switch_prepared => 1 });
    $s->execute(1);
    $s->finish;
    my @out = failing(sub { $s->execute(0) });
    undef $s;
    $c->rollback;
    push @out, run($c, "SELECT 'on'");
    $c->rollback;
    close_it($c);
    return @out;
});

test('transactions of the driver', 0, sub {
    my $c = open_with(attributes => { AutoCommit => 0 });
    my @out;
    $c->do('DROP TABLE IF EXISTS t_perl');
    $c->do('CREATE TABLE t_perl (id int PRIMARY KEY)');
    $c->commit;
    push @out, $c->do('INSERT INTO t_perl VALUES (?)', undef, 1);
    $c->pg_savepoint('sp');
    push @out, failing(sub { $c->do('INSERT INTO t_perl VALUES (1)') }), $c->ping;
    $c->pg_rollback_to('sp');
    push @out, $c->do('INSERT INTO t_perl VALUES (2)');
    $c->pg_release('sp');
    $c->commit;
    push @out, run($c, 'SELECT id FROM t_perl ORDER BY id'), $c->ping;
    $c->rollback;
    push @out, $c->ping;
    $c->do('DROP TABLE t_perl');
    $c->commit;
    close_it($c);
    return @out;
});

test('copy', 0, sub {
    my $c = open_with();
    $c->do('DROP TABLE IF EXISTS t_perlcopy');
    $c->do('CREATE TABLE t_perlcopy (id int, v text)');
    $c->do('COPY t_perlcopy FROM STDIN');
    $c->pg_putcopydata("$_\trow $_\n") for 0 .. 4999;
    $c->pg_putcopyend;
    my @out = run($c, 'SELECT count(*), sum(id) FROM t_perlcopy');
    $c->do('COPY t_perlcopy TO STDOUT');
    my ($line, $n) = ('', 0);
    $n++ while $c->pg_getcopydata($line) >= 0;
    push @out, $n;
    $c->do('COPY t_perlcopy FROM STDIN');
    $c->pg_putcopydata("no number\tx\n");
    push @out, failing(sub { $c->pg_putcopyend });
    push @out, run($c, "SELECT 'on'");
    $c->do('DROP TABLE t_perlcopy');
    close_it($c);
    return @out;
});

test('listen and notify', 1, sub {
    my ($a, $b) = (open_with(), open_with());
    $a->do('LISTEN perlchan');
    $b->do("NOTIFY perlchan, 'one'");
    $b->do('SELECT pg_notify(?, ?)', undef, 'perlchan', 'zwei ü');
    my @out;
    my $end = time + 15;
    while (@out < 2 && time < $end) {
        my $n = $a->pg_notifies;
        if ($n) { push @out, "$n->[0] $n->[2]" } else { select undef, undef, undef, 0.05 }
    }
    close_it($_) for $a, $b;
    return @out;
});

test('backend pid', 0, sub {
    my $c = open_with();
    my $r = run($c, "SELECT pg_backend_pid() = $c->{pg_pid}");
    close_it($c);
    return $r;
});

test('asynchronous query and cancel', 0, sub {
    my $c = open_with();
    my @out;
    for (1 .. 2) {
        $c->do('SELECT pg_sleep(30)', { pg_async => PG_ASYNC });
        select undef, undef, undef, 0.3;
        push @out, failing(sub { $c->pg_cancel });
        push @out, run($c, "SELECT 'on'");
    }
    my $s = $c->prepare('SELECT 5 FROM pg_sleep(0.1)', { pg_async => PG_ASYNC });
    $s->execute;
    push @out, $s->pg_result, rows($s);
    close_it($c);
    return @out;
});

test('several statements in one query', 0, sub {
    my $c = open_with();
    my @out = ($c->do("SET work_mem = '5MB'; SELECT 1; SELECT 2"), run($c, 'SHOW work_mem'));
    push @out, failing(sub { $c->do("SET work_mem = '6MB'; SELECT 1/0") }), run($c, 'SHOW work_mem');
    close_it($c);
    return @out;
});

test('notices', 0, sub {
    my $c = open_with();
    my @out;
    local $SIG{__WARN__} = sub { push @out, (split /\n/, $_[0])[0] };
    $c->{PrintWarn} = 1;
    $c->do("DO \$\$ BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; END \$\$");
    $c->do('DROP TABLE IF EXISTS no_such_table');
    close_it($c);
    return map { s/ at \S+ line.*//r } @out;
});

test('large value both ways', 0, sub {
    my $c = open_with();
    my $text = '0123456789abcdef' x (5 * 65536);
    my ($n, $t) = $c->selectrow_array('SELECT length(?::text), ?::text', undef, $text, $text);
    close_it($c);
    return $n, $t eq $text ? 'same' : 'other';
});

test('metadata', 0, sub {
    my $c = open_with();
    $c->do('DROP TABLE IF EXISTS t_perlmeta');
    $c->do('CREATE TABLE t_perlmeta (id serial PRIMARY KEY, v numeric(5,2) NOT NULL)');
    my @out = map { join '|', map { $_ // '' } @$_[3, 5, 6, 10] } @{ $c->column_info(undef, 'public', 't_perlmeta', '%')->fetchall_arrayref };
    push @out, $c->primary_key(undef, 'public', 't_perlmeta');
    $c->do('INSERT INTO t_perlmeta (v) VALUES (1.5)');
    push @out, $c->last_insert_id(undef, 'public', 't_perlmeta', undef), $c->{pg_server_version}, $c->{pg_enable_utf8};
    $c->do('DROP TABLE t_perlmeta');
    close_it($c);
    return @out;
});

test('large object', 0, sub {
    my $c = open_with(attributes => { AutoCommit => 0 });
    my $oid = $c->pg_lo_creat($c->{pg_INV_WRITE});
    my $fd = $c->pg_lo_open($oid, $c->{pg_INV_WRITE});
    my @out = $c->pg_lo_write($fd, 'x' x 1000, 1000);
    $c->pg_lo_close($fd);
    push @out, $c->pg_lo_unlink($oid);
    $c->commit;
    close_it($c);
    return @out;
});

# As programs do it: a new statement object for each execution.
sub program {
    my ($auto) = @_;
    my $c = open_with(attributes => { AutoCommit => $auto });
    $c->do($_) for 'DROP TABLE IF EXISTS t_program', 'CREATE TABLE t_program (id int PRIMARY KEY, v text)';
    $c->commit unless $auto;
    my @out;
    for my $i (0 .. 29) {
        $c->do('INSERT INTO t_program VALUES (?, ?)', undef, $i, "v$i");
        my $s = $c->prepare('SELECT v FROM t_program WHERE id = ?');
        $s->execute($i);
        push @out, $s->fetchrow_array;
        undef $s;
        if ($i % 10 == 5) {
            push @out, failing(sub { my $t = $c->prepare(q{INSERT INTO t_program VALUES (?, 'again')}); $t->execute($i) });
            push @out, failing(sub { scalar $c->selectrow_array(q{SELECT 'on or refused' WHERE ? = 1}, undef, 1) });
        }
        next if $auto;
        $i % 4 == 3 ? $c->rollback : $i % 2 ? $c->commit : 0;
    }
    $c->commit unless $auto;
    push @out, $c->selectrow_array('SELECT count(*), sum(id) FROM t_program');
    $c->do('DROP TABLE t_program');
    $c->commit unless $auto;
    close_it($c);
    return @out;
}

test('like a program: new statements, autocommit on', 0, sub { program(1) });
test('like a program: new statements, autocommit off', 0, sub { program(0) });

test('a copy that fails while its rows are sent', 0, sub {
    my @out;
    for my $auto (1, 0) {
        my $c = open_with(attributes => { AutoCommit => $auto });
        $c->do($_) for 'DROP TABLE IF EXISTS t_fails', 'CREATE TABLE t_fails (id int PRIMARY KEY, v text)';
        $c->commit unless $auto;
        for my $behind (1, 50, 5000, 50000) {
            $c->do('COPY t_fails FROM STDIN');
            push @out, failing(sub {
                $c->pg_putcopydata("$_\ta row of some length, so that there are many messages\n") for 1, 1, 2 .. $behind + 1;
                $c->pg_putcopyend;
            });
            # (the driver has noticed it at the end of the copy, or on the way)
            eval { $c->pg_putcopyend };
            $c->rollback unless $auto;
            push @out, $c->selectrow_array(q{SELECT 'on', count(*) FROM t_fails});
        }
        $c->do('DROP TABLE t_fails');
        $c->commit unless $auto;
        close_it($c);
    }
    return @out;
});

test('a client that leaves in the middle', 0, sub {
    my $c = open_with();
    $c->do($_) for 'DROP TABLE IF EXISTS t_leaves', 'CREATE TABLE t_leaves (id int PRIMARY KEY)';
    close_it($c);
    my @out;
    for my $how ('KILL', 'TERM', 'disconnect') {
        for my $where ('transaction', 'copy') {
            pipe my $from, my $to;
            my $pid = fork // die "fork: $!";
            if ($pid == 0) {
                my $c = open_with(attributes => { AutoCommit => 0 });
                if ($where eq 'copy') {
                    $c->do('COPY t_leaves FROM STDIN');
                    $c->pg_putcopydata("$_\n") for 0 .. 20000;
                } else {
                    $c->do('INSERT INTO t_leaves VALUES (?), (?)', undef, 1, 2);
                }
                syswrite $to, 'x';
                if ($how eq 'disconnect') { $c->disconnect; kill KILL => $$ }
                sleep 60;
            }
            sysread $from, my $byte, 1;
            kill $how => $pid if $how ne 'disconnect';
            waitpid $pid, 0;
            $c = open_with(attributes => { AutoCommit => 0 });
            $c->do('LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE');
            push @out, $c->selectrow_array('SELECT count(*) FROM t_leaves');
            $c->rollback;
            close_it($c);
        }
    }
    $c = open_with();
    $c->do('DROP TABLE t_leaves');
    close_it($c);
    return @out;
});

my @all;
open my $f, '<:encoding(UTF-8)', $ENV{DRIVERS_CASES} or die "$ENV{DRIVERS_CASES}: $!";
while (<$f>) {
    chomp;
    next if /^#/ || !/\S/;
    if (/^case (\S+)( two)?$/) { push @all, [$1, $2 ? 1 : 0, []] } else { push @{ $all[-1][2] }, $_ }
}
close $f;
my %only = map { $_ => 1 } grep { length } split /\|/, $ENV{DRIVERS_ONLY} // '';
my %skip = map { $_ => 1 } grep { length } split /\|/, $ENV{DRIVERS_SKIP} // '';
for (@all, @own) {
    my ($name, $two, $what) = @$_;
    next if (%only && !$only{$name}) || $skip{$name} || ($two && ($ENV{DRIVERS_ONE} // '') eq '1');
    print "> $name\n";
    my @result = eval { ref $what eq 'ARRAY' ? steps(@$what) : $what->() };
    @result = ('!! ' . error($@)) if $@;
    my $text = join ' ; ', map { show($_) } @result;
    $text =~ s/\\/\\\\/g;
    $text =~ s/\n/\\n/g;
    $text =~ s/\r/\\r/g;
    $text =~ s/\t/\\t/g;
    print "$name\t$text\n";
}
