# Minion and Mojo::Pg: a queue whose jobs run in processes of their own, LISTEN, migrations.
# SPDX-License-Identifier: Apache-2.0
use Mojo::Base -strict, -signatures;
use Minion;
use Mojo::IOLoop;
use Mojo::JSON qw(encode_json decode_json);
use Mojo::Pg;
use Mojo::Promise;
use Encode qw(decode_utf8 encode_utf8);
use POSIX ();

$| = 1;
$Mojo::JSON::VERSION and local $ENV{MOJO_LOG_LEVEL} = 'fatal';
my (@cases, %roles);

sub test ($name, $run) { push @cases, [$name, $run] }
sub role ($name, $run) { $roles{$name} = $run }

sub pg ($max = 5) {
    my $pg = Mojo::Pg->new->max_connections($max);
    $pg->dsn("dbi:Pg:host=$ENV{PGHOST};port=$ENV{PGPORT};dbname=$ENV{PGDATABASE};sslmode=verify-full;sslrootcert=$ENV{PGSSLROOTCERT}");
    return $pg->username($ENV{PGUSER})->password($ENV{PGPASSWORD});
}

sub show ($v) {
    return ref $v ? Mojo::JSON::to_json($v) : $v // 'NULL';
}

sub failing ($run) {
    my $r = eval { show($run->()) };
    return $r if defined $r;
    my $e = $@;
    $e =~ s/ at \S+ line \d+.*//s;
    $e =~ s/\n.*//s;
    return "!$e";
}

sub rows ($sql, @values) { return pg()->db->query($sql, @values)->arrays->to_array }

sub until_so ($run, $seconds = 25) {
    my $end = time + $seconds;
    while (time < $end) {
        return 1 if $run->();
        select undef, undef, undef, 0.05;
    }
    return 0;
}

# A process that is ready for its role and waits for a line.
package Helper {
    sub new ($class, $role, @arguments) {
        pipe my $from, my $to_parent;
        pipe my $from_parent, my $to;
        my $pid = fork // die "fork: $!";
        if ($pid == 0) {
            open STDIN, '<&', $from_parent;
            open STDOUT, '>&', $to_parent;
            close $_ for $from, $to;
            # A group of its own: what it forks is killed with it.
            exec $^X, $0, $role, @arguments;
        }
        close $_ for $to_parent, $from_parent;
        $to->autoflush(1);
        my $self = bless { pid => $pid, from => $from, to => $to, heard => [] }, $class;
        $self->hear('ready');
        return $self;
    }
    sub hear ($self, $text) {
        while (defined(my $line = readline $self->{from})) {
            chomp $line;
            push @{ $self->{heard} }, $line;
            return 1 if $line eq $text;
        }
        return 0;
    }
    sub go ($self) { syswrite $self->{to}, "go\n"; return $self }
    sub stop ($self) { kill TERM => $self->{pid}; return $self }
    sub kill ($self) { kill KILL => $self->{pid}; waitpid $self->{pid}, 0; return $? & 127 }
    sub result ($self) {
        while (defined(my $line = readline $self->{from})) {
            chomp $line;
            push @{ $self->{heard} }, $line;
        }
        waitpid $self->{pid}, 0;
        return $self->{heard}[-1];
    }
}

sub tally (@results) {
    my %n;
    $n{$_}++ for @results;
    return join ', ', map {"$n{$_}x $_"} sort keys %n;
}

sub together ($count, $role, @arguments) {
    my @all = map { Helper->new($role, @arguments) } 1 .. $count;
    $_->go for @all;
    return map { $_->result } @all;
}

sub columns ($schema) {
    return rows(
        q{SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
           WHERE table_schema = ? AND table_name <> 'greeting' AND table_name NOT LIKE 'pgbench%' ORDER BY 1, 2}, $schema);
}

my $migrations = <<'END';
-- 1 up
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE people (id serial PRIMARY KEY, name text NOT NULL UNIQUE, mood mood DEFAULT 'ok', tags text[], more jsonb);
-- 1 down
DROP TABLE people;
DROP TYPE mood;
-- 2 up
CREATE TABLE effects (n int, pid int);
INSERT INTO people (name) VALUES ('Ada'), ('Grace');
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('people', NEW.name); RETURN NEW; END $$;
CREATE TRIGGER shout AFTER INSERT ON people FOR EACH ROW EXECUTE FUNCTION shout();
-- 2 down
DROP TRIGGER shout ON people;
DROP FUNCTION shout;
DROP TABLE effects;
DELETE FROM people;
-- 3 up
CREATE INDEX people_mood ON people (mood);
-- 3 down
DROP INDEX people_mood;
END

sub minion ($pg = pg(8)) {
    my $minion = Minion->new(Pg => $pg);
    $minion->app->log->level('fatal');
    $minion->add_task(effect => sub ($job, $n) {
        $job->minion->backend->pg->db->query('INSERT INTO effects VALUES (?, 0)', $n);
        $job->finish({ n => $n });
    });
    $minion->add_task(once_bad => sub ($job, $n) {
        die "this job throws\n" if $job->retries == 0;
        $job->minion->backend->pg->db->query('INSERT INTO effects VALUES (?, 0)', $n);
    });
    $minion->add_task(hang => sub ($job, $n) {
        # (its worker is waited for by the line below, its own process goes with it)
        syswrite STDOUT, "mid-job\n" if $job->retries == 0;
        if ($job->retries == 0) { sleep 60 }
        $job->minion->backend->pg->db->query('INSERT INTO effects VALUES (?, 0)', $n);
    });
    $minion->add_task(guarded => sub ($job, $n) {
        return $job->retry({ delay => 0 }) unless my $guard = $job->minion->guard('one at a time', 10);
        my $db = $job->minion->backend->pg->db;
        my $tx = $db->begin;
        $db->query('INSERT INTO effects VALUES (?, 0)', $n);
        $tx->commit;
    });
    $minion->add_task(crash => sub ($job, @) { POSIX::_exit(3) });
    $minion->add_task(note => sub ($job, @) { $job->note(half => 1, 'ü' => [1]); $job->finish([@{ $job->args }]) });
    return $minion;
}

# It makes its table before it locks it, by CREATE TABLE IF NOT EXISTS, which two may do at once:
# who loses is started again.
role migrate => sub {
    my $pg = pg();
    my $m = $pg->migrations->name('app')->from_string($migrations);
    for (1 .. 5) {
        eval { $m->migrate; 1 } and return $m->active;
        die $@ unless $@ =~ /pg_type_typname_nsp_index|mojo_migrations/;
    }
    die $@;
};
role minion_schema => sub { my $m = minion(my $pg = pg()); $m->backend->pg->migrations->active; return $m->stats->{inactive_jobs} // 'none' };
role hang_in_migration => sub {
    my $pg = pg();
    my $db = $pg->db;
    my $tx = $db->begin;
    $db->query('LOCK TABLE mojo_migrations IN EXCLUSIVE MODE');
    $db->query('CREATE TABLE half (id int)');
    syswrite STDOUT, "in it\n";
    sleep 60;
};
role work => sub ($jobs) {
    my $worker = minion()->worker;
    # (its signals are ours to send; jobs are forked)
    $worker->status->{$_->[0]} = $_->[1] for [ jobs => $jobs ], [ dequeue_timeout => 1 ], [ heartbeat_interval => 1 ], [ missing_after => 2 ], [ repair_interval => 1 ];
    $worker->run;
    return 'stopped';
};

test 'three migrate at once' => sub {
    return tally(together(3, 'migrate')), columns('public'), rows('SELECT name, version FROM mojo_migrations ORDER BY 1');
};

test 'down and up; a migration that fails; one that is killed' => sub {
    my ($pg, $other) = (pg(), pg());
    my $m = $pg->migrations->name('app')->from_string($migrations);
    my @out = ($m->latest, $m->active, $m->migrate(0)->active, columns('public'), $m->migrate(2)->active, $m->migrate->active);
    my $bad = $other->migrations->name('app')->from_string("$migrations\n-- 4 up\nCREATE TABLE bad (id int);\nSELECT 1/0;\n");
    push @out, failing(sub { $bad->migrate; 'fine' }), rows("SELECT to_regclass('bad')"), $m->active;
    my $h = Helper->new('hang_in_migration');
    push @out, $h->go->hear('in it'), $h->kill, tally(together(3, 'migrate')), rows("SELECT to_regclass('half')");
    return @out;
};

test 'its own schema by three at once' => sub {
    return tally(together(3, 'minion_schema')), rows("SELECT name, version FROM mojo_migrations WHERE name = 'minion'"), columns('public');
};

test 'jobs: arguments, notes, priorities, parents, expiry, retries' => sub {
    my $m = minion();
    my @out;
    my $a = $m->enqueue(note => ['x', { 'ü' => [1, undef] }] => { priority => 1 });
    my $b = $m->enqueue(effect => [1] => { parents => [$a] });
    my $c = $m->enqueue(effect => [2] => { delay => 3600 });
    my $d = $m->enqueue(once_bad => [3] => { attempts => 2 });
    my $e = $m->enqueue('crash');
    my $f = $m->enqueue(unknown => []);
    $m->backoff(sub ($retries) { 0 });
    # (a job that is tried again may still be in its transaction: until nothing is left)
    until_so(sub { $m->perform_jobs; my $s = $m->stats; $s->{inactive_jobs} - $s->{delayed_jobs} == 0 && $s->{active_jobs} == 0 });
    push @out, map { my $i = $m->job($_)->info; [@$i{qw(task state args result notes retries)}] } $a, $b, $c, $d, $e, $f;
    push @out, map { scalar @{ $m->job($_)->info->{parents} } } $a, $b;
    push @out, failing(sub { $m->job($c)->remove ? 'removed' : 'not removed' }), $m->job($f)->retry ? 'again' : 'no', $m->job($f)->info->{state}, $m->job($f)->remove ? 'removed' : 'no';
    my $s = $m->stats;
    push @out, [@$s{qw(finished_jobs failed_jobs inactive_jobs enqueued_jobs)}], $m->backend->list_jobs(0, 10, { states => ['failed'] })->{total};
    push @out, $m->lock('l', 60) ? 1 : 0, $m->lock('l', 60) ? 1 : 0, $m->is_locked('l') ? 1 : 0, $m->unlock('l') ? 1 : 0, $m->lock('l', 0) ? 1 : 0, $m->lock('two', 60, { limit => 2 }) ? 1 : 0, $m->lock('two', 60, { limit => 2 }) ? 1 : 0, $m->lock('two', 60, { limit => 2 }) ? 1 : 0;
    $m->reset({ locks => 1 });
    push @out, $m->backend->list_locks(0, 10)->{total}, ref $m->history->{daily}, rows('SELECT count(*), count(DISTINCT n) FROM effects');
    return @out;
};

test 'three workers: one is killed in mid-job, one job throws' => sub {
    my $m = minion();
    $m->reset({ all => 1 });
    rows('DELETE FROM effects RETURNING n');
    my $hung = $m->enqueue(hang => [0]);
    my $doomed = Helper->new('work', 1)->go;
    my @out = ($doomed->hear('mid-job'), $doomed->kill);
    # A worker is missing when it has not been heard of for a while: repair fails its job.
    $m->missing_after(1);
    $m->enqueue(effect => [$_]) for 1 .. 30;
    $m->enqueue(once_bad => [31] => { attempts => 2 });
    $m->enqueue(guarded => [$_]) for 32 .. 36;
    my @workers = map { Helper->new('work', 3)->go } 1 .. 3;
    push @out, until_so(sub { $m->repair; my $i = $m->job($hung)->info; $i->{state} eq 'failed' && $i->{result} eq 'Worker went away' });
    $m->job($hung)->retry;
    # (the backoff of the one that throws is its second retry's: at once here)
    push @out, until_so(sub { rows("UPDATE minion_jobs SET delayed = now() WHERE state = 'inactive' RETURNING id"); my $s = $m->stats; $s->{finished_jobs} == 37 });
    $_->stop for @workers;
    push @out, tally(map { $_->result } @workers), rows('SELECT state, count(*) FROM minion_jobs GROUP BY 1'), rows('SELECT count(*), count(DISTINCT n) FROM effects');
    push @out, $m->job($hung)->info->{retries}, rows('SELECT count(*) FROM minion_workers WHERE id IN (SELECT worker FROM minion_jobs WHERE false)');
    return @out;
};

test 'a worker wakes by NOTIFY' => sub {
    my $m = minion();
    $m->reset({ all => 1 });
    my $worker = $m->worker->register;
    my @out;
    for my $n (1 .. 3) {
        my $pid = fork;
        if (!$pid) { select undef, undef, undef, 0.4; minion()->enqueue(effect => [100 + $n]); POSIX::_exit(0) }
        my $job = $worker->dequeue(30);
        push @out, $job ? $job->args : 'nothing came';
        $job->finish if $job;
        waitpid $pid, 0;
    }
    $worker->unregister;
    return @out;
};

test 'commands to workers, broadcasts' => sub {
    my $m = minion();
    my @workers = map { $m->worker->register } 1 .. 2;
    my @heard;
    for my $i (0, 1) { $workers[$i]->add_command(hear => sub ($w, @a) { push @heard, "$i @a" }) }
    my @out = ($m->broadcast(hear => ['all']) ? 1 : 0, $m->broadcast(hear => ['second'], [$workers[1]->id]) ? 1 : 0);
    $_->process_commands for @workers;
    $_->unregister for @workers;
    return @out, [sort @heard], $m->backend->list_workers(0, 10)->{total} - $m->backend->list_workers(0, 10)->{total};
};

test 'Mojo::Pg: pubsub, promises, transactions, cursors' => sub {
    my $pg = pg();
    my (@out, @heard);
    $pg->pubsub->json('news')->listen(news => sub ($p, $v) { push @heard, $v; Mojo::IOLoop->stop if @heard == 3 });
    $pg->pubsub->listen(people => sub ($p, $v) { push @heard, "person $v"; Mojo::IOLoop->stop if @heard == 3 });
    $pg->pubsub->notify(news => { 'ü' => [1] });
    $pg->db->insert('people', { name => 'Linus', tags => ['x', 'y,z'], more => { json => { k => [1, undef] } } });
    $pg->pubsub->notify(news => 'text');
    my $timer = Mojo::IOLoop->timer(20 => sub { Mojo::IOLoop->stop });
    Mojo::IOLoop->start unless @heard == 3;
    Mojo::IOLoop->remove($timer);
    push @out, @heard;
    push @out, $pg->db->select('people', [qw(name mood tags more)], { name => 'Linus' })->expand->hashes->to_array;
    push @out, $pg->db->update('people', { mood => 'sad' }, { name => 'Linus' }, { returning => 'mood' })->hash;
    my @promises = map { $pg->db->query_p('SELECT count(*) FROM generate_series(1, $1::int)', $_)->then(sub ($r) { $r->array->[0] }) } 1 .. 8;
    my @got;
    Mojo::Promise->all(@promises)->then(sub (@r) { @got = map { $_->[0] } @r })->wait;
    push @out, \@got, failing(sub { $pg->db->query('SELECT 1/0') }), failing(sub { $pg->db->insert('people', { name => 'Ada' }) });
    {
        my $db = $pg->db;
        my $tx = $db->begin;
        $db->delete('people');
        undef $tx;    # rolls back
        push @out, $db->query('SELECT count(*) FROM people')->array;
    }
    my $db = $pg->db;
    my $tx = $db->begin;
    $db->query('DECLARE c CURSOR FOR SELECT generate_series(1, 1000)');
    my $sum = 0;
    while (my $r = $db->query('FETCH 100 FROM c')->arrays->to_array) { last unless @$r; $sum += $_->[0] for @$r }
    $tx->commit;
    push @out, $sum, $pg->db->delete('people', { name => 'Linus' }, { returning => 'name' })->hash, $pg->db->tables ? [grep {/minion|people|effects/} @{ $pg->db->tables }] : [];
    $pg->pubsub->unlisten($_) for qw(news people);
    return @out;
};

sub main {
    if (@ARGV) {
        my ($role, @arguments) = @ARGV;
        say 'ready';
        <STDIN>;
        my $r = failing(sub { $roles{$role}->(@arguments) });
        say $r;
        return;
    }
    my %only = map { ($_ => 1) } grep {length} split /\|/, $ENV{DRIVERS_ONLY} // '';
    my %skip = map { ($_ => 1) } grep {length} split /\|/, $ENV{DRIVERS_SKIP} // '';
    for my $case (@cases) {
        my ($name, $run) = @$case;
        next if (%only && !$only{$name}) || $skip{$name};
        say "> $name";
        my @r = eval { $run->() };
        my $text = $@ ? "!! $@" : join ' ; ', map { show($_) } @r;
        $text =~ s/\\/\\\\/g;
        $text =~ s/\n/\\n/g;
        $text =~ s/\r/\\r/g;
        $text =~ s/\t/\\t/g;
        say encode_utf8("$name\t$text");
    }
}
main();
