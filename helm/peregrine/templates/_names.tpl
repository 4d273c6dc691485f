{{/* Name of every object. 40 characters leave room for the suffixes that controllers add. */}}
{{- define "peregrine.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" (.Release.Name | trunc 30 | trimSuffix "-") .Chart.Name -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change: a Deployment's selector cannot. */}}
{{- define "peregrine.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Labels of the pods that answer requests: all of a Deployment, the leaders of a LeaderWorkerSet. */}}
{{- define "peregrine.serverSelector" -}}
{{ include "peregrine.selector" . }}
app.kubernetes.io/component: server
{{- end -}}

{{/* Labels of an object: list of the context and more labels. Those that select pods cannot be overridden. */}}
{{- define "peregrine.labels" -}}
{{- $root := index . 0 -}}
{{- $own := dict
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/managed-by" $root.Release.Service
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_")
-}}
{{- toYaml (merge (include "peregrine.selector" $root | fromYaml) (index . 1) $own $root.Values.commonLabels) -}}
{{- end -}}

{{/* metadata of an object: list of the context, a suffix of the name, more labels, annotations. */}}
{{- define "peregrine.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "peregrine.fullname" $root }}{{ index . 1 }}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- include "peregrine.labels" (list $root (index . 2)) | nindent 2 }}
{{- with index . 3 }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "peregrine.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "peregrine.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "peregrine.image" -}}
{{- $tag := .Values.image.tag | default (printf "%s-%s" .Chart.AppVersion (ternary "cuda" "cpu" (gt (int .Values.gpus.count) 0))) -}}
{{- with .Values.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ $tag }}{{ end }}{{ end -}}
{{- end -}}

{{/* Secret with the API keys; empty where the server is open. */}}
{{- define "peregrine.keySecret" -}}
{{- if .Values.auth.existingSecret -}}
{{- .Values.auth.existingSecret -}}
{{- else if .Values.auth.apiKeys -}}
{{- include "peregrine.fullname" . -}}
{{- end -}}
{{- end -}}

{{/* Secret with the hub's token; empty where there is none. */}}
{{- define "peregrine.hubSecret" -}}
{{- if .Values.hub.existingSecret -}}
{{- .Values.hub.existingSecret -}}
{{- else if .Values.hub.token -}}
{{- include "peregrine.fullname" . -}}
{{- end -}}
{{- end -}}
