// Made by `npm run generate` from the OpenAPI document. Do not edit.

/** Method and path of each call; what is not JSON is marked. */
export const operations = {
  /** Send a message: POST /chat-messages */
  sendChatMessage: ["POST", "/chat-messages"],
  /** Stop a turn: POST /chat-messages/{task_id}/stop */
  stopChatMessage: ["POST", "/chat-messages/{task_id}/stop"],
  /** List conversations: GET /conversations */
  listConversations: ["GET", "/conversations"],
  /** Delete a conversation: DELETE /conversations/{conversation_id} */
  deleteConversation: ["DELETE", "/conversations/{conversation_id}"],
  /** Name a conversation: POST /conversations/{conversation_id}/name */
  renameConversation: ["POST", "/conversations/{conversation_id}/name"],
  /** List messages: GET /messages */
  listMessages: ["GET", "/messages"],
  /** Rate an answer: POST /messages/{message_id}/feedbacks */
  rateMessage: ["POST", "/messages/{message_id}/feedbacks"],
  /** Suggest questions: GET /messages/{message_id}/suggested */
  getSuggestedQuestions: ["GET", "/messages/{message_id}/suggested"],
  /** List a conversation's variables: GET /conversations/{conversation_id}/variables */
  listConversationVariables: ["GET", "/conversations/{conversation_id}/variables"],
  /** Set a conversation's variable: PUT /conversations/{conversation_id}/variables/{variable_id} */
  updateConversationVariable: ["PUT", "/conversations/{conversation_id}/variables/{variable_id}"],
  /** List the ratings of all users: GET /app/feedbacks */
  listFeedbacks: ["GET", "/app/feedbacks"],
  /** Upload a file: POST /files/upload */
  uploadFile: ["POST", "/files/upload", "form"],
  /** Get a file: GET /files/{file_id}/preview */
  previewFile: ["GET", "/files/{file_id}/preview", "raw"],
  /** Get a file without a key: GET /files/{file_id}/download */
  downloadFile: ["GET", "/files/{file_id}/download", "raw"],
  /** Get a form: GET /form/human_input/{form_token} */
  getHumanInputForm: ["GET", "/form/human_input/{form_token}"],
  /** Submit a form: POST /form/human_input/{form_token} */
  submitHumanInputForm: ["POST", "/form/human_input/{form_token}"],
  /** Describe the app: GET /info */
  getAppInfo: ["GET", "/info"],
  /** Describe the app's tools: GET /meta */
  getAppMeta: ["GET", "/meta"],
  /** Describe the app's chat page: GET /site */
  getAppSite: ["GET", "/site"],
  /** Describe the app's features: GET /parameters */
  getAppParameters: ["GET", "/parameters"],
  /** Describe an end user: GET /end-users/{end_user_id} */
  getEndUser: ["GET", "/end-users/{end_user_id}"],
  /** Turn speech into text: POST /audio-to-text */
  audioToText: ["POST", "/audio-to-text", "form"],
  /** Turn text into speech: POST /text-to-audio */
  textToAudio: ["POST", "/text-to-audio", "raw"],
  /** Alive: GET /healthz */
  getHealth: ["GET", "/healthz"],
  /** Ready: GET /readyz */
  getReadiness: ["GET", "/readyz"],
} as const;

/** The codes of errors. A newer gateway may know more. */
export type ErrorCode =
  | "invalid_param"
  | "bad_request"
  | "app_unavailable"
  | "not_workflow_app"
  | "provider_not_initialize"
  | "provider_quota_exceeded"
  | "completion_request_error"
  | "model_currently_not_support"
  | "context_length_exceeded"
  | "output_length_exceeded"
  | "content_filtered"
  | "agent_run_limit_exceeded"
  | "no_file_uploaded"
  | "too_many_files"
  | "filename_not_exists_error"
  | "unauthorized"
  | "not_found"
  | "end_user_not_found"
  | "file_not_found"
  | "method_not_allowed"
  | "conversation_busy"
  | "human_input_required"
  | "human_input_form_submitted"
  | "human_input_form_expired"
  | "request_too_large"
  | "file_too_large"
  | "unsupported_file_type"
  | "range_not_satisfiable"
  | "idempotency_conflict"
  | "too_many_requests"
  | "rate_limit_error"
  | "internal_server_error"
  | "not_supported"
  | "turn_interrupted"
  | "backend_refused"
  | "answer_incomplete"
  | "output_invalid"
  | "provider_unavailable"
  | "service_unavailable"
  | "turn_timeout"
  | "provider_timeout";
