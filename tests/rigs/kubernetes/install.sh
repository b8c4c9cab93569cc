#!/bin/bash
# Everything, from Debian's source to $RIG/bin and $RIG/img: about 5 minutes on 2 cores, once per machine. Needs the
# packages that setup.sh installs.
set -eu
. "$(dirname "$0")/env.sh"
SOURCE=$R/src/go/src/k8s.io/kubernetes COMMANDS="kube-apiserver kube-controller-manager kube-scheduler kubelet kubemark kubectl"

# Debian's source package (bookworm; later suites leave the server out), in its GOPATH place, with Debian's patches
fetch() {
  local d=$R/src/deb a=$R/src/apt mirror p
  mkdir -p $d $a/lists/partial $a/cache/archives/partial; cd $d
  if ! ls kubernetes_1.20*.orig.tar.gz >/dev/null 2>&1; then
    mirror=${HEPSPAWNER_DEBIAN_MIRROR:-$("$HERE/../debian-mirror.sh")}
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main" >$a/sources.list
    local get=(apt-get -qq -o Dir::Etc::sourcelist=$a/sources.list -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$a/lists
      -o Dir::Cache=$a/cache -o Acquire::Languages=none -o APT::Sandbox::User=root -o Acquire::Retries=3)
    "${get[@]}" update; "${get[@]}" --download-only source kubernetes
  fi
  rm -rf $SOURCE; mkdir -p $(dirname $SOURCE); tar xzf kubernetes_1.20*.orig.tar.gz; mv kubernetes-1.20.2 $SOURCE; cd $SOURCE
  tar xJf $d/kubernetes_1.20*.debian.tar.xz
  for p in $(cat debian/patches/series); do patch -sp1 <debian/patches/$p; done
  # pods that ended are looked at every second, not every 10: a deletion takes 4 s, not up to 14 s
  sed -i 's/^const syncPeriod = 10 \* time.Second/const syncPeriod = 1 * time.Second/' pkg/kubelet/status/status_manager.go
  cp build/pause/linux/pause.c $R/img/
}

# pkg/generated/openapi/zz_generated.openapi.go, which the tarball lacks
openapi() {
  go build -p 2 -o $R/bin/openapi-gen k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
  local dirs
  dirs=$(find -L vendor/k8s.io pkg cmd plugin -name '*.go' -not -path '*/code-generator/*' -not -path '*/sample-apiserver/*' \
    -not -path '*/sample-controller/*' -print0 2>/dev/null | xargs -0 grep -l '+k8s:openapi-gen=' | xargs -n1 dirname | LC_ALL=C sort -u |
    sed 's#^#k8s.io/kubernetes/#' | paste -sd,)
  $R/bin/openapi-gen --logtostderr --v 0 -i "$dirs" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r $R/src/violations.report
}

build() {
  local p ld="-s -w"
  for p in k8s.io/kubernetes/vendor/k8s.io/client-go/pkg/version k8s.io/kubernetes/vendor/k8s.io/component-base/version; do
    ld="$ld -X $p.gitVersion=v1.20.2 -X $p.gitMajor=1 -X $p.gitMinor=20 -X $p.gitTreeState=archive -X $p.buildDate=2021-01-13T13:20:00Z"
  done
  # all at once: while one is linked, others are compiled
  go build -p 2 -trimpath -ldflags "$ld" -o $R/bin/ $(printf 'k8s.io/kubernetes/cmd/%s ' $COMMANDS)
}

[ -e $R/complete ] && exit 0
export PATH=/usr/lib/go-1.19/bin:$PATH GOROOT=/usr/lib/go-1.19 GOPATH=$R/src/go GOCACHE=$R/src/gocache
export GO111MODULE=off GOFLAGS= GOPROXY=off GOSUMDB=off GOTOOLCHAIN=local CGO_ENABLED=0
renice -n 10 $$ >/dev/null
fetch
cd $SOURCE
openapi
build
"$HERE/mkimages.sh"
rm -rf $R/src
touch $R/complete
