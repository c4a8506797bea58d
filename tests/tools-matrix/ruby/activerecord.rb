# ActiveRecord: migrations under its advisory lock, models, its pool and statement cache.
# SPDX-License-Identifier: Apache-2.0
require 'active_record'
require 'json'
require 'stringio'

$stdout.sync = true
ActiveRecord::Base.logger = nil
ActiveRecord::Migration.verbose = false
CASES = []
ROLES = {}

def test(name, &run) = CASES << [name, run]
def role(name, &run) = ROLES[name] = run

def settings(more = {})
  { adapter: 'postgresql', host: ENV['PGHOST'], port: ENV['PGPORT'].to_i, username: ENV['PGUSER'], password: ENV['PGPASSWORD'],
    database: ENV['PGDATABASE'], sslmode: 'verify-full', sslrootcert: ENV['PGSSLROOTCERT'], pool: 5, checkout_timeout: 5 }.merge(more)
end

def connect(more = {}) = ActiveRecord::Base.establish_connection(settings(more))
def db = ActiveRecord::Base.connection
def show(value) = value.is_a?(String) ? value : JSON.generate(value)

def failing
  show(yield)
rescue StandardError => e
  "!#{e.class} #{e.message.lines.map(&:strip).reject { |l| l.start_with?('LINE', '^') }.join(' ')}"
end

def look(sql) = db.select_rows(sql)

class Helper
  def initialize(role, *arguments)
    from, to_parent = IO.pipe
    from_parent, @to = IO.pipe
    @pid = spawn(RbConfig.ruby, $PROGRAM_NAME, role, *arguments.map(&:to_s), in: from_parent, out: to_parent)
    [to_parent, from_parent].each(&:close)
    @from = from
    @heard = []
    hear('ready')
  end

  def hear(text)
    while (line = @from.gets)
      @heard << line.chomp
      return true if @heard.last == text
    end
    false
  end

  def go = tap { @to.puts('go') }

  def kill
    Process.kill(:KILL, @pid)
    Process.wait(@pid)
    $?.termsig
  end

  def result
    hear('(nothing)')
    Process.wait(@pid)
    @heard.last
  end
end

def together(count, role, *arguments)
  all = Array.new(count) { Helper.new(role, *arguments) }
  all.each(&:go)
  all.map(&:result)
end

def tally(results) = results.tally.sort.map { |k, v| "#{v}x #{k}" }.join(', ')

class People < ActiveRecord::Migration[6.1]
  def change
    reversible { |d| d.up { execute "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')" } }
    create_table(:people) do |t|
      t.string :name, null: false, limit: 80, index: { unique: true }
      t.column :mood, :mood, default: 'ok'
      t.text :tags, array: true, default: []
      t.jsonb :more
      t.integer :lock_version, default: 0
      t.timestamps
    end
    reversible { |d| d.down { execute 'DROP TYPE mood' } }
  end
end

class Pets < ActiveRecord::Migration[6.1]
  def change
    create_table(:pets, id: :uuid, default: 'gen_random_uuid()') do |t|
      t.references :person, foreign_key: { on_delete: :cascade }
      t.string :name
      t.decimal :weight, precision: 8, scale: 2
      t.date :born
      t.inet :address
      t.interval :age
      t.index %i[person_id name], where: 'name IS NOT NULL'
    end
    add_check_constraint :pets, 'weight >= 0', name: 'positive'
    create_table(:jobs) { |t| t.string :state, default: 'new'; t.integer :tries, default: 0 }
    create_table(:effects) { |t| t.integer :job }
  end
end

class Concurrently < ActiveRecord::Migration[6.1]
  disable_ddl_transaction!
  def change
    add_index :pets, :weight, algorithm: :concurrently
    add_column :people, :rank, :integer
    change_column_null :pets, :name, false, 'nameless'
    rename_column :people, :rank, :grade
  end
end

class Hangs < ActiveRecord::Migration[6.1]
  def up
    create_table :half
    puts 'in it'
    sleep 60
  end
end

class Bad < ActiveRecord::Migration[6.1]
  def up
    create_table :bad
    execute 'SELECT 1/0'
  end
end

class Plan < ActiveRecord::MigrationContext
  def initialize(classes)
    @classes = classes
    super([], ActiveRecord::SchemaMigration)
  end

  def migrations
    @classes.each_with_index.map do |c, i|
      ActiveRecord::MigrationProxy.new(c.name, i + 1, '', '').tap { |m| m.define_singleton_method(:load_migration) { c.new(c.name, i + 1) } }
    end
  end
end

ALL = [People, Pets, Concurrently].freeze

# Losers of the lock are told so, and try again as a deployment does; so do those that lose where
# the table of migrations is made, before the lock.
def migrate(classes = ALL)
  tries = 0
  begin
    Plan.new(classes).migrate
  rescue ActiveRecord::ConcurrentMigrationError, ActiveRecord::RecordNotUnique, ActiveRecord::StatementInvalid => e
    raise unless e.is_a?(ActiveRecord::ConcurrentMigrationError) || e.message =~ /pg_type_typname_nsp_index|pg_class_relname_nsp_index|schema_migrations|ar_internal_metadata/

    sleep 0.05
    retry if (tries += 1) < 400
    raise
  end
  Plan.new(classes).current_version
end

role('migrate') { connect; migrate }
role('hang') { connect; migrate([*ALL, Hangs]) }
role('work') do |dies, throws|
  connect
  loop do
    more = begin
      Job.transaction do
        job = Job.where(state: 'new').order(:id).lock('FOR UPDATE SKIP LOCKED').first
        next Job.where(state: 'new').exists? unless job

        job.update!(state: 'done', tries: job.tries + 1)
        Effect.create!(job: job.id)
        if job.id == dies.to_i
          puts 'mid-job'
          sleep 60
        end
        raise 'this job throws' if job.id == throws.to_i && job.tries == 1

        true
      end
    rescue RuntimeError => e
      raise unless e.message == 'this job throws'

      Job.where(id: throws.to_i).update_all('tries = tries + 1')
      true
    end
    break 'no more jobs' unless more
  end
end

class Person < ActiveRecord::Base
  has_many :pets, dependent: :destroy
  validates :name, presence: true
  scope :tagged, ->(t) { where('tags @> ARRAY[?]::text[]', t) }
end

class Pet < ActiveRecord::Base
  belongs_to :person, optional: true
end

class Job < ActiveRecord::Base; end
class Effect < ActiveRecord::Base; end

def dump = StringIO.new.tap { |s| ActiveRecord::SchemaDumper.dump(db, s) }.string.lines.reject { |l| l =~ /greeting|pgbench|^#/ || l.strip.empty? }.join

test('three migrate at once') { [tally(together(3, 'migrate')), look('SELECT version FROM schema_migrations ORDER BY 1'), dump] }

test('rollback, forward, to a version; one that fails, one that is told of another') do
  plan = Plan.new(ALL)
  out = [plan.rollback(1).size, plan.current_version, plan.migrate(1).size, plan.current_version, db.tables.sort - %w[greeting], plan.migrate.size, plan.needs_migration?]
  out << failing { Plan.new([*ALL, Bad]).migrate } << db.table_exists?('bad') << plan.current_version
  # Rails' own key of the database.
  key = ActiveRecord::Migrator.const_get(:MIGRATOR_SALT) * Zlib.crc32(db.current_database)
  other = PG.connect(host: ENV['PGHOST'], port: ENV['PGPORT'], user: ENV['PGUSER'], password: ENV['PGPASSWORD'], dbname: ENV['PGDATABASE'], sslmode: 'verify-full', sslrootcert: ENV['PGSSLROOTCERT'])
  other.exec("SELECT pg_advisory_lock(#{key})")
  out << failing { plan.rollback(1) }
  other.exec("SELECT pg_advisory_unlock(#{key})")
  other.close
  out << failing { plan.rollback(1).size } << failing { plan.migrate.size }
end

test('a migrator that is killed gives its lock free') do
  h = Helper.new('hang').go
  [h.hear('in it'), h.kill, tally(together(3, 'migrate')), db.table_exists?('half')]
end

test('models: arrays, JSON, enumerations, upserts, relations, optimistic locks') do
  out = []
  bare = ->(r) { r.attributes.except('id', 'created_at', 'updated_at', 'person_id') }
  linus = Person.create!(name: 'Linus', tags: ['x', 'y,z', '"q"', nil], more: { 'ü' => [1, { a: nil }] }, mood: 'sad')
  out << bare.(linus.reload)
  linus.pets.create!([{ name: 'Tux', weight: 12.5, born: '2024-02-29', address: '192.168.0.0/24', age: 3.days }, { name: 'Gnu', weight: 3 }])
  out << linus.pets.order(:name).map(&bare) << Person.tagged('x').pluck(:name) << Person.where("more->'ü'->>0 = ?", '1').count
  Person.insert_all([{ name: 'Ada', created_at: Time.now, updated_at: Time.now }, { name: 'Linus', created_at: Time.now, updated_at: Time.now }])
  out << Person.upsert_all([{ name: 'Ada', mood: 'happy', created_at: Time.now, updated_at: Time.now }], unique_by: :name, returning: %w[name mood]).rows
  stale = Person.find_by!(name: 'Ada')
  Person.find_by!(name: 'Ada').update!(grade: 3)
  out << failing { stale.update!(grade: 4) }
  out << Person.joins(:pets).group(:name).count << Person.includes(:pets).order(:name).map { |p| [p.name, p.pets.size] } << Pet.average(:weight).to_s << Pet.sum(:weight).to_s
  out << failing { Person.create!(name: 'Ada') } << failing { Person.create! } << failing { Person.create!(name: 'm', mood: 'angry') } << failing { Pet.create!(name: 'n', weight: -1) } << failing { Pet.create!(name: nil) } << failing { Pet.create!(name: 'f', person_id: -1) } << failing { db.execute('SELEC 1') } << failing { Person.find(-1) }
  linus.destroy!
  out << Pet.count << Person.pluck(:name)
end

test('prepared statements: cache, limit, change of a table') do
  out = []
  connect(statement_limit: 5)
  60.times { |n| Person.where(name: "n#{n % 3}", grade: n).limit(1 + n % 12).to_a }
  out << (db.instance_variable_get(:@statements).length <= 5)
  connect
  out << Person.find_by(name: 'Ada').name
  db.execute('ALTER TABLE people ADD COLUMN extra text')
  # The cached plan's result has changed: Rails prepares again.
  out << failing { Person.find_by(name: 'Ada').name }
  out << failing { Person.transaction { Person.find_by(name: 'Ada').name } }
  db.execute('ALTER TABLE people DROP COLUMN extra')
  Person.reset_column_information
  out << failing { Person.find_by(name: 'Ada').name }
  connect(prepared_statements: false)
  out << Person.where(name: 'Ada').pluck(:name) << db.exec_query('SELECT $1::int + 1 AS n', 'q', [ActiveRecord::Relation::QueryAttribute.new('n', 41, ActiveRecord::Type::Integer.new)]).rows
  connect
  out
end

test('transactions, savepoints, isolation, locks, after commit') do
  out = []
  names = -> { Person.order(:name).pluck(:name) }
  Person.transaction do
    Person.create!(name: 'outer')
    out << failing { Person.transaction(requires_new: true) { Person.create!(name: 'inner'); Person.create!(name: 'outer') } }
    Person.transaction(requires_new: true) { Person.create!(name: 'second') }
    Person.transaction(requires_new: true) { Person.create!(name: 'third'); raise ActiveRecord::Rollback }
  end
  out << names.call << failing { Person.transaction { Person.delete_all; raise 'no' } } << names.call
  %i[read_committed repeatable_read serializable].each { |i| out << Person.transaction(isolation: i) { db.select_value('SHOW transaction_isolation') } }
  out << Person.transaction { Person.find_by!(name: 'outer').with_lock { Thread.new { failing { Person.transaction { Person.lock('FOR UPDATE NOWAIT').find_by!(name: 'outer') } } }.value } }
  out << Person.where(name: %w[outer second]).delete_all
end

test('batches, raw COPY, EXPLAIN, cursors') do
  Pet.insert_all(Array.new(2500) { |n| { name: "bulk #{n}", weight: n / 4.0 } })
  sum = 0
  Pet.where("name LIKE 'bulk%'").find_each(batch_size: 400) { |p| sum += p.weight }
  raw = db.raw_connection
  raw.copy_data('COPY pets (name, weight) FROM STDIN') { 1000.times { |n| raw.put_copy_data("copied #{n}\t#{n}\n") } }
  bad = failing { raw.copy_data('COPY jobs (id) FROM STDIN') { 300.times { raw.put_copy_data("1\n") } } }
  got = 0
  raw.copy_data("COPY (SELECT name FROM pets WHERE name LIKE 'copied%') TO STDOUT") { got += 1 while raw.get_copy_data }
  [sum.to_s, got, bad, Pet.count, Pet.where(weight: 1).explain.include?('Scan'), Pet.delete_all]
end

test('a pool of threads, settings of its connections, what wait too long') do
  connect(pool: 3, checkout_timeout: 0.4, variables: { statement_timeout: 7000, application_name: 'rails' })
  all = Array.new(3) { Thread.new { ActiveRecord::Base.connection_pool.with_connection { |c| Array.new(20) { c.select_rows("SELECT current_setting('application_name'), current_setting('statement_timeout'), current_setting('standard_conforming_strings'), current_setting('TimeZone')") } } } }.flat_map(&:value)
  held = Array.new(3) { q = Queue.new; [q, Thread.new { ActiveRecord::Base.connection_pool.with_connection { q.pop } }] }
  sleep 0.1
  Thread.new { Thread.current[:e] = failing { ActiveRecord::Base.connection_pool.with_connection { |c| c.select_value('SELECT 1') } } }.tap(&:join).then { |t| all << t[:e].sub(/\(waited .*/, '') }
  held.each { |q, t| q << 1; t.join }
  connect
  [all.uniq, failing { db.execute('SET statement_timeout = 100'); db.execute('SELECT pg_sleep(10)') }, failing { db.reset!; db.select_value('SHOW statement_timeout') }, db.active?]
end

test('LISTEN, NOTIFY, advisory locks') do
  out = []
  db.execute('LISTEN news')
  Thread.new { 3.times { |n| db.execute("SELECT pg_notify('news', 'n#{n}')") }; ActiveRecord::Base.clear_active_connections! }.join
  3.times { db.raw_connection.wait_for_notify(20) { |_, _, payload| out << payload } }
  db.execute('UNLISTEN *')
  out << db.get_advisory_lock(4715) << Thread.new { db.get_advisory_lock(4715).tap { ActiveRecord::Base.clear_active_connections! } }.value << db.release_advisory_lock(4715) << db.release_advisory_lock(4715)
end

test('introspection') { [db.columns('pets').map { |c| [c.name, c.sql_type, c.null] }, db.indexes('pets').map { |i| [i.name, i.columns, i.where] }, db.foreign_keys('pets').map { |f| [f.to_table, f.on_delete] }, db.check_constraints('pets').map(&:expression), db.extensions, db.primary_key('people'), db.schema_names.include?('public'), db.encoding, db.collation.class.name] }

test('jobs with skip locked: one worker is killed, one job throws') do
  db.execute('INSERT INTO jobs (id) SELECT g FROM generate_series(1, 60) g')
  doomed = Helper.new('work', 1, 0).go
  [doomed.hear('mid-job'), doomed.kill, tally(together(3, 'work', 0, 7)), look('SELECT state, tries > 1, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1, 2'), look('SELECT count(*), count(DISTINCT job) FROM effects')]
end

if ARGV.empty?
  listed = ->(v) { (ENV[v] || '').split('|').reject(&:empty?) }
  connect
  CASES.each do |name, run|
    next if (listed.('DRIVERS_ONLY').any? && !listed.('DRIVERS_ONLY').include?(name)) || listed.('DRIVERS_SKIP').include?(name)

    puts "> #{name}"
    text = begin
      r = run.call
      r.is_a?(Array) ? r.map { |v| show(v) }.join(' ; ') : show(r)
    rescue StandardError => e
      "!! #{e.class} #{e.message} #{e.backtrace.first(3)}"
    end
    puts "#{name}\t#{text.gsub('\\', '\\\\\\\\').gsub("\n", '\\n').gsub("\r", '\\r').gsub("\t", '\\t')}"
  end
else
  puts 'ready'
  $stdin.gets
  puts(failing { ROLES[ARGV[0]].call(*ARGV[1..]) })
end
