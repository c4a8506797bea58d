# Manual pages and documentation, and what is shipped for deployment.
dist_man_MANS = man/postern.1 man/postern.ini.5
dist_doc_DATA = README.md CHANGELOG.md CONTRIBUTING.md docs/ARCHITECTURE.md docs/clients.md docs/configuration.md \
	docs/kubernetes.md docs/operations.md docs/security.md
EXTRA_DIST += docker/Dockerfile docker/Dockerfile.dockerignore docker/README.md \
	docker/app.sh docker/compose.yaml docker/cluster-init.sh docker/postern.ini docker/setup.sh
EXTRA_DIST += deploy/kubernetes/README.md \
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

dist_check_SCRIPTS += tests/tools/check-examples.py
