# Ruby's pg.
# SPDX-License-Identifier: Apache-2.0
require 'pg'
require 'socket'

$stdout.sync = true
OWN = []

def test(name, two = false, &run)
  OWN << [name, two, run]
end

def open_with(options = {})
  c = PG.connect({ connect_timeout: 20 }.merge(options))
  c.set_notice_processor { |_| nil }
  c
end

def error(e)
  if e.is_a?(PG::Error)
    r = e.result
    text = e.message.lines.first.to_s.strip.sub(/connection to server at .*? failed: /, '')
    return "!#{e.class} #{r && r.error_field(PG::PG_DIAG_SQLSTATE)} #{text}"
  end
  "!#{e.class} #{e.message}"
end

def failing
  show(yield)
rescue StandardError => e
  error(e)
end

def show(v)
  v.nil? ? 'NULL' : v.to_s
end

def rows(r)
  names = r.nfields.times.map { |i| "#{r.fname(i)}:#{r.ftype(i)}" }.join(',')
  "#{r.cmd_status}(#{names})" + r.values.map { |row| "[#{row.map { |v| show(v) }.join(',')}]" }.join
end

def run(c, sql)
  rows(c.exec(sql))
end

def arg(c, sql, values)
  @kept ||= {}
  mine = (@kept[c] ||= {})
  unless mine[sql]
    name = "case #{mine.size}"
    c.prepare(name, sql)
    mine[sql] = name
  end
  rows(c.exec_prepared(mine[sql], values))
end

def steps(lines)
  out = []
  open = {}
  lines.each do |line|
    times = 1
    verb, rest = line.split(' ', 2)
    times, verb, rest = rest.split(' ', 3) if verb == 'times'
    name, text = rest.split(' ', 2)
    text ||= ''
    values = []
    if verb == 'arg'
      text, tail = text.split(' <-', 2)
      values = tail.split('|', -1).map(&:strip)
    end
    last = nil
    count = 0
    tell = -> { out << (count > 1 ? "#{last} x#{count}" : last) if last }
    times.to_i.times do
      begin
        result =
          if verb == 'open'
            options = text.split(';;').map(&:strip).reject(&:empty?).to_h { |p| k, v = p.split('=', 2); [k.to_sym, v] }
            open[name] = open_with(options)
            '+'
          elsif !open[name]
            '(not connected)'
          elsif verb == 'close'
            open.delete(name).close
            '-'
          else
            verb == 'run' ? run(open[name], text) : arg(open[name], text, values)
          end
      rescue StandardError => e
        result = error(e)
      end
      if last == result
        count += 1
      else
        tell.call
        last = result
        count = 1
      end
    end
    tell.call
  end
  open.each_value(&:close)
  out
end

test('types round trip') do
  c = open_with
  c.type_map_for_results = PG::BasicTypeMapForResults.new(c)
  c.type_map_for_queries = PG::BasicTypeMapForQueries.new(c)
  out = [['text', "it's ü 世界😀"], ['int8', 2**60], ['float8', 1.25], ['bool', true], ['int[]', [1, 2]], ['text[]', ['a', 'b,c', 'd"e']],
         ['text', nil], ['bytea', { value: "\x00\x01\xFF".b, format: 1 }]].map do |type, v|
    failing { c.exec_params("SELECT $1::#{type} AS v", [v]).values.inspect }
  end
  c.close
  out
end

test('prepared statements') do
  c = open_with
  c.prepare('named', 'SELECT $1::int + 1 AS n')
  out = 3.times.map { |i| rows(c.exec_prepared('named', [i])) }
  out << failing { c.prepare('named', 'SELECT 1') }
  d = c.describe_prepared('named')
  out << d.nparams << d.fname(0) << failing { c.exec_prepared('named', ['x']) }
  out << rows(c.exec_prepared('named', [5])) << run(c, 'DEALLOCATE named') << failing { c.exec_prepared('named', [5]) }
  c.close
  out
end

test('300 prepared statements') do
  c = open_with
  300.times { |i| c.prepare("s#{i}", "SELECT #{i} + $1::int") }
  sum = 2.times.sum { 300.times.sum { |i| c.exec_prepared("s#{i}", [1]).getvalue(0, 0).to_i } }
  c.close
  [sum]
end

test('transactions of the driver') do
  c = open_with
  c.exec('DROP TABLE IF EXISTS t_ruby')
  c.exec('CREATE TABLE t_ruby (id int PRIMARY KEY)')
  out = [c.transaction { |t| t.exec('INSERT INTO t_ruby VALUES (1)').cmd_tuples }]
  out << failing { c.transaction { |t| t.exec('INSERT INTO t_ruby VALUES (2)'); t.exec('INSERT INTO t_ruby VALUES (1)') } }
  out << c.transaction_status << run(c, 'SELECT id FROM t_ruby')
  out << failing { c.transaction { |t| t.exec('INSERT INTO t_ruby VALUES (3)'); raise 'the program fails' } }
  out << run(c, 'SELECT id FROM t_ruby')
  c.exec('DROP TABLE t_ruby')
  c.close
  out
end

test('copy') do
  c = open_with
  c.exec('DROP TABLE IF EXISTS t_rubycopy')
  c.exec('CREATE TABLE t_rubycopy (id int, v text)')
  r = c.copy_data('COPY t_rubycopy FROM STDIN') { 5000.times { |i| c.put_copy_data("#{i}\trow #{i}\n") } }
  out = [r.cmd_tuples]
  n = 0
  c.copy_data('COPY t_rubycopy TO STDOUT') { n += 1 while c.get_copy_data }
  out << n
  out << failing { c.copy_data('COPY t_rubycopy FROM STDIN') { c.put_copy_data("no number\tx\n") } }
  out << failing { c.copy_data('COPY t_rubycopy FROM STDIN') { raise 'the program fails' } }
  e = PG::TextEncoder::CopyRow.new
  c.copy_data('COPY t_rubycopy FROM STDIN', e) { c.put_copy_data([7, nil]) }
  out << run(c, 'SELECT count(*), count(v) FROM t_rubycopy')
  c.exec('DROP TABLE t_rubycopy')
  c.close
  out
end

test('listen and notify', true) do
  a = open_with
  b = open_with
  a.exec('LISTEN rubychan')
  b.exec("NOTIFY rubychan, 'one'")
  b.exec_params('SELECT pg_notify($1, $2)', ['rubychan', 'zwei ü'])
  out = 2.times.map do
    got = 'none'
    a.wait_for_notify(15) { |channel, _pid, payload| got = "#{channel} #{payload}" }
    got
  end
  [a, b].each(&:close)
  out
end

test('backend pid') do
  c = open_with
  out = run(c, "SELECT pg_backend_pid() = #{c.backend_pid}")
  c.close
  [out]
end

test('cancel') do
  c = open_with
  out = []
  3.times do
    t = Thread.new { sleep 0.3; c.cancel }
    out << failing { c.exec('SELECT pg_sleep(30)') }
    t.join
    out << run(c, "SELECT 'on'")
  end
  c.close
  out
end

test('single-row mode') do
  c = open_with
  c.send_query('SELECT g FROM generate_series(1, 5000) g')
  c.set_single_row_mode
  sum = 0
  c.get_result.stream_each { |row| sum += row['g'].to_i }
  c.get_last_result
  out = [sum]
  c.send_query('SELECT 1/(5 - g) FROM generate_series(1, 9) g')
  c.set_single_row_mode
  out << failing { c.get_result.stream_each { |_| nil } }
  c.discard_results
  out << run(c, "SELECT 'on'")
  c.close
  out
end

test('pipeline') do
  c = open_with
  c.enter_pipeline_mode
  20.times { |i| c.send_query_params('SELECT $1::int', [i]) }
  c.send_query_params('SELECT 1/$1::int', [0])
  c.send_query_params("SELECT 'skipped'", [])
  c.pipeline_sync
  c.send_query_params("SELECT 'next'", [])
  c.pipeline_sync
  out = []
  while out.count('sync') < 2
    r = c.get_result
    next unless r

    out << case r.result_status
           when PG::PGRES_PIPELINE_SYNC then 'sync'
           when PG::PGRES_PIPELINE_ABORTED then 'aborted'
           when PG::PGRES_FATAL_ERROR then r.error_field(PG::PG_DIAG_SQLSTATE)
           else rows(r)
           end
  end
  c.exit_pipeline_mode
  out << run(c, "SELECT 'on'")
  c.close
  out
end

test('several statements in one query') do
  c = open_with
  c.send_query("SELECT 1; SET work_mem = '5MB'; SELECT 2; SHOW work_mem")
  out = []
  while (r = c.get_result)
    out << rows(r)
  end
  out << failing { c.exec("SET work_mem = '6MB'; SELECT 1/0") } << run(c, 'SHOW work_mem')
  c.close
  out
end

test('notices') do
  c = open_with
  out = []
  c.set_notice_receiver { |r| out << r.error_field(PG::PG_DIAG_SEVERITY) + r.error_field(PG::PG_DIAG_MESSAGE_PRIMARY) }
  c.exec("DO $$ BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; END $$")
  c.exec('DROP TABLE IF EXISTS no_such_table')
  c.close
  out
end

test('encodings') do
  c = open_with(client_encoding: 'LATIN1')
  out = [c.internal_encoding, c.exec("SELECT 'ü'".encode('ISO-8859-1')).getvalue(0, 0).encode('UTF-8')]
  c.internal_encoding = 'UTF-8'
  out << c.get_client_encoding << run(c, "SELECT '世'")
  c.set_client_encoding('WIN1252')
  out << run(c, 'SHOW client_encoding')
  c.close
  out
end

test('large value both ways') do
  c = open_with
  text = '0123456789abcdef' * (5 * 65536)
  r = c.exec_params('SELECT length($1::text), $1::text', [text])
  out = [r.getvalue(0, 0), r.getvalue(0, 1) == text]
  c.close
  out
end

test('large object') do
  c = open_with
  out = c.transaction do
    oid = c.lo_creat
    fd = c.lo_open(oid, PG::INV_WRITE | PG::INV_READ)
    n = c.lo_write(fd, 'x' * 1000)
    c.lo_lseek(fd, 0, PG::SEEK_SET)
    m = c.lo_read(fd, 2000).size
    c.lo_close(fd)
    [n, m, c.lo_unlink(oid)]
  end
  c.close
  out
end

test('reset of the connection') do
  c = open_with(options: '-c work_mem=3MB')
  c.exec("SET work_mem = '5MB'")
  c.reset
  out = run(c, 'SHOW work_mem')
  c.close
  [out]
end

# As programs do it: a new statement for each execution, with a name and without.
def program(auto)
  c = open_with
  c.exec('DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)')
  c.exec('BEGIN') unless auto
  out = []
  30.times do |i|
    c.exec_params('INSERT INTO t_program VALUES ($1, $2)', [i, "v#{i}"])
    name = "program #{i}"
    out << failing { c.prepare(name, 'SELECT v FROM t_program WHERE id = $1') && c.exec_prepared(name, [i]).getvalue(0, 0) }
    c.exec("DEALLOCATE \"#{name}\"")
    if i % 10 == 5
      out << failing { c.exec_params("INSERT INTO t_program VALUES ($1, 'again')", [i]).cmd_status }
      out << failing { c.exec_params("SELECT 'on or refused'", []).getvalue(0, 0) }
    end
    next if auto || !(i.odd? || i % 10 == 5)

    c.exec(i % 4 == 3 ? 'ROLLBACK' : 'COMMIT')
    c.exec('BEGIN')
  end
  c.exec('COMMIT') unless auto
  out << run(c, 'SELECT count(*), sum(id) FROM t_program')
  c.exec('DROP TABLE t_program')
  c.close
  out
end

test('like a program: new statements, autocommit on') { program(true) }
test('like a program: new statements, autocommit off') { program(false) }

test('a copy that fails while its rows are sent') do
  out = []
  [true, false].each do |auto|
    c = open_with
    c.exec('DROP TABLE IF EXISTS t_fails; CREATE TABLE t_fails (id int PRIMARY KEY, v text)')
    [1, 50, 5000, 50_000].each do |behind|
      c.exec('BEGIN') unless auto
      out << failing do
        c.copy_data('COPY t_fails FROM STDIN') do
          [1, 1, *(2..behind + 1)].each { |i| c.put_copy_data("#{i}\ta row of some length, so that there are many messages\n") }
        end
        'went well'
      end
      c.exec('ROLLBACK') unless auto
      out << run(c, "SELECT 'on', count(*) FROM t_fails")
    end
    c.exec('DROP TABLE t_fails')
    c.close
  end
  out
end

test('a client that leaves in the middle') do
  c = open_with
  c.exec('DROP TABLE IF EXISTS t_leaves; CREATE TABLE t_leaves (id int PRIMARY KEY)')
  c.close
  out = []
  left = lambda do
    look = open_with
    look.exec('BEGIN; LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE')
    out << run(look, 'SELECT count(*) FROM t_leaves')
    look.exec('COMMIT')
    look.close
  end
  [true, false].each do |silent|
    leave = ->(x) { silent ? Socket.for_fd(x.socket_io.fileno).tap { |s| s.autoclose = false }.shutdown : nil; x.close }
    c = open_with
    c.exec('BEGIN')
    c.exec_params('INSERT INTO t_leaves VALUES ($1), ($2)', [1, 2])
    leave.(c)
    left.()
    # Before the Sync of a batch, of which the server has done a part.
    c = open_with
    c.enter_pipeline_mode
    3.times { |i| c.send_query_params('INSERT INTO t_leaves VALUES ($1::int)', [i]) }
    c.send_flush_request
    c.flush
    out << c.get_result.cmd_status
    leave.(c)
    left.()
    c = open_with
    out << failing do
      c.copy_data('COPY t_leaves FROM STDIN') do
        20_000.times { |i| c.put_copy_data("#{i}\n") }
        leave.(c)
        raise 'the client is gone'
      end
    end
    left.()
  end
  c = open_with
  c.exec('DROP TABLE t_leaves')
  c.close
  out
end

all = []
File.foreach(ENV.fetch('DRIVERS_CASES'), chomp: true, encoding: 'UTF-8') do |line|
  next if line.strip.empty? || line.start_with?('#')

  m = /^case (\S+)( two)?$/.match(line)
  m ? all << [m[1], !m[2].nil?, []] : all.last[2] << line
end
only = (ENV['DRIVERS_ONLY'] || '').split('|')
skip = (ENV['DRIVERS_SKIP'] || '').split('|')
(all + OWN).each do |name, two, what|
  next if (!only.empty? && !only.include?(name)) || skip.include?(name) || (two && ENV['DRIVERS_ONE'] == '1')

  puts "> #{name}"
  begin
    result = what.is_a?(Array) ? steps(what) : what.call
  rescue StandardError => e
    result = ["!! #{error(e)}"]
  end
  text = result.map { |v| show(v) }.join(' ; ')
  puts "#{name}\t" + text.gsub('\\') { '\\\\' }.gsub("\n", '\\n').gsub("\r", '\\r').gsub("\t", '\\t')
end
