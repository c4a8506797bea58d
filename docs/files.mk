# Manual pages and documentation, and what is shipped for deployment.
dist_man_MANS = man/postern.1 man/postern.ini.5
# In the folders that they have here, with what they link to: a link works where it is installed.
nobase_dist_doc_DATA = README.md CHANGELOG.md CONTRIBUTING.md LICENSE docs/ARCHITECTURE.md docs/clients.md \
	docs/configuration.md docs/found-in-use.md docs/kubernetes.md docs/operations.md docs/peers-bugs.md \
	docs/security.md docs/yugabytedb.md conf/postern.ini bench/README.md \
	tests/drivers/README.md tests/regress/README.md tests/tools-matrix/README.md \
	docker/Dockerfile docker/Dockerfile.dockerignore docker/README.md \
	docker/app.sh docker/compose.yaml docker/cluster-init.sh docker/postern.ini docker/setup.sh \
	deploy/redis/users.conf deploy/kubernetes/README.md \
	deploy/kubernetes/base/kustomization.yaml deploy/kubernetes/base/namespace.yaml \
	deploy/kubernetes/base/networkpolicy.yaml deploy/kubernetes/base/postern.ini \
	deploy/kubernetes/secrets.example.yaml \
	deploy/kubernetes/daemonset/daemonset.yaml deploy/kubernetes/daemonset/kustomization.yaml \
	deploy/kubernetes/daemonset/service.yaml \
	deploy/kubernetes/daemonset-hostport/kustomization.yaml \
	deploy/kubernetes/daemonset-hostport/hostport.yaml \
	deploy/kubernetes/fleet/deployment.yaml deploy/kubernetes/fleet/kustomization.yaml \
	deploy/kubernetes/fleet/pdb.yaml deploy/kubernetes/fleet/service.yaml \
	deploy/kubernetes/sidecar/deployment.yaml deploy/kubernetes/sidecar/kustomization.yaml \
	deploy/kubernetes/sidecar/networkpolicy.yaml deploy/kubernetes/sidecar/postern.ini \
	deploy/kubernetes/database/helm-values.yaml deploy/kubernetes/database/networkpolicy.yaml \
	deploy/kubernetes/monitoring/podmonitor.yaml deploy/kubernetes/redis/kustomization.yaml \
	deploy/kubernetes/redis/redis.yaml

dist_check_SCRIPTS += tests/tools/check-examples.py tests/tools/check-deploy.py
# The benchmark, the drivers' and the tools' matrix and PostgreSQL's own tests, which the pages
# above point to.
EXTRA_DIST += \
	bench/__init__.py \
	bench/__main__.py \
	bench/clients.py \
	bench/flooder.py \
	bench/floods \
	bench/floods.py \
	bench/measure.py \
	bench/proxies.py \
	bench/report.py \
	bench/run \
	tests/drivers/common.cases \
	tests/drivers/documented.txt \
	tests/drivers/go/harness/harness.go \
	tests/drivers/go/libpq/main.go \
	tests/drivers/go/pgx/main.go \
	tests/drivers/install \
	tests/drivers/java/Cases.java \
	tests/drivers/java/LostBlock.java \
	tests/drivers/libpq/cases.c \
	tests/drivers/libpq/harness.h \
	tests/drivers/lost \
	tests/drivers/node/harness.js \
	tests/drivers/node/pg.js \
	tests/drivers/node/postgres.js \
	tests/drivers/odbc/cases.c \
	tests/drivers/package-lock.json \
	tests/drivers/package.json \
	tests/drivers/perl/cases.pl \
	tests/drivers/php/cases.php \
	tests/drivers/programs.py \
	tests/drivers/python/asyncpg_cases.py \
	tests/drivers/python/django_cases.py \
	tests/drivers/python/harness.py \
	tests/drivers/python/pg_dump.py \
	tests/drivers/python/pgbench.py \
	tests/drivers/python/psql.py \
	tests/drivers/python/psycopg2_cases.py \
	tests/drivers/python/psycopg3_cases.py \
	tests/drivers/python/sqlalchemy_cases.py \
	tests/drivers/ruby/cases.rb \
	tests/drivers/run \
	tests/drivers/rust/.cargo/config.toml \
	tests/drivers/rust/Cargo.toml \
	tests/drivers/rust/cases.rs \
	tests/drivers/stirrer.py \
	tests/drivers/table.py \
	tests/regress/documented.txt \
	tests/regress/run \
	tests/tools-matrix/install \
	tests/tools-matrix/java/Hikari.java \
	tests/tools-matrix/node/drizzle.js \
	tests/tools-matrix/node/graphile-worker.js \
	tests/tools-matrix/node/harness.js \
	tests/tools-matrix/node/knex.js \
	tests/tools-matrix/node/kysely.js \
	tests/tools-matrix/node/node-pg-migrate.js \
	tests/tools-matrix/node/pg-boss.js \
	tests/tools-matrix/node/postgraphile.js \
	tests/tools-matrix/node/sequelize.js \
	tests/tools-matrix/node/slonik.js \
	tests/tools-matrix/node/typeorm.js \
	tests/tools-matrix/package-lock.json \
	tests/tools-matrix/package.json \
	tests/tools-matrix/perl/minion.pl \
	tests/tools-matrix/python/alembic_tool.py \
	tests/tools-matrix/ruby/activerecord.rb \
	tests/tools-matrix/run \
	tests/tools-matrix/tools.py \
	tests/torture/run.py \
	tests/versions/install \
	tests/versions/package-lock.json \
	tests/versions/package.json
