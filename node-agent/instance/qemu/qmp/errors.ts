/** QEMU refused a command. The message has its words and what was asked. */
export class QmpError extends Error {
  readonly command: string;
  /** QEMU's class of error, such as GenericError, CommandNotFound, DeviceNotFound. */
  readonly errorClass: string;
  /** QEMU's own words. */
  readonly description: string;

  constructor(command: string, errorClass: string, description: string) {
    super(`${command}: ${description}`);
    this.name = "QmpError";
    this.command = command;
    this.errorClass = errorClass;
    this.description = description;
  }
}

/** No answer within the deadline. The command may still be carried out; a late answer is dropped. */
export class QmpTimeout extends Error {
  readonly command: string;

  constructor(command: string, deadlineMs: number) {
    super(`${command}: no answer within ${deadlineMs} ms`);
    this.name = "QmpTimeout";
    this.command = command;
  }
}

/** The connection is gone, or was never had. Whether a command that was under way was carried out is not known. */
export class QmpClosed extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "QmpClosed";
  }
}
