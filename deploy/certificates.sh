#!/bin/sh
# Issues a certificate for servers:  sh deploy/certificates.sh FOLDER HOST...
# FOLDER gets server.crt and server.key, for the names and addresses HOST, and at the first time the authority: ca.crt, which
# clients trust (TAPELINE_CA), and ca.key, which issues further certificates. Needs OpenSSL 3.
set -eu
folder=$1
shift
names=
for host in "$@"; do
  case $host in
    *:* | *[0-9].[0-9]*.[0-9]*.[0-9]*) names="$names,IP:$host" ;;
    *) names="$names,DNS:$host" ;;
  esac
done
umask 077
mkdir -p "$folder"
issue() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 "$@"
}
if [ ! -e "$folder/ca.key" ]; then
  issue -subj "/CN=Authority of Tapeline on $1" -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout "$folder/ca.key" -out "$folder/ca.crt"
fi
issue -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -subj "/CN=$1" -addext "subjectAltName=${names#,}" \
  -addext basicConstraints=critical,CA:FALSE -keyout "$folder/server.key" -out "$folder/server.crt"
chmod 644 "$folder/ca.crt" "$folder/server.crt"
